#!/bin/sh
# Writes control/pb anew from the .proto files. The modules are imported as control.pb.cdc.v1, while
# protoc lets them import each other as cdc.v1.
set -eu
cd "$(dirname "$0")/.."
bin=$PWD/.venv/bin
out=control/pb
rm -rf "$out/cdc"
PATH="$bin:$PATH" "$bin/python" -m grpc_tools.protoc -Iproto \
	--python_out="$out" --grpc_python_out="$out" --mypy_out="$out" --mypy_grpc_out="$out" \
	proto/cdc/v1/*.proto
for file in "$out"/cdc/v1/*.py "$out"/cdc/v1/*.pyi; do
	sed -i 's/^from cdc\.v1 import /from control.pb.cdc.v1 import /' "$file"
done
# A file of messages alone has no services to stub.
for file in "$out"/cdc/v1/*_pb2_grpc.py; do
	grep -q "Servicer" "$file" || rm -f "$file" "${file}i"
done
touch "$out/__init__.py" "$out/cdc/__init__.py" "$out/cdc/v1/__init__.py"

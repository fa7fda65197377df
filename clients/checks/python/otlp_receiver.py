"""A receiver of OTLP that prints each span as a line of JSON, as `oteltap` does: over gRPC, or over HTTP with JSON.

    otlp_receiver.py grpc|http/json PORT

Messages and service are the specification's own (`opentelemetry-proto`), gRPC is its first implementation.
"""

import base64
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

IDS = ("traceId", "spanId", "parentSpanId")


def tell(request):
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                told = MessageToDict(span, use_integers_for_enums=True)
                told["traceId"] = span.trace_id.hex()
                told["spanId"] = span.span_id.hex()
                told["parentSpanId"] = span.parent_span_id.hex()
                print(json.dumps(told), flush=True)


class Service(trace_service_pb2_grpc.TraceServiceServicer):
    def Export(self, request, context):
        tell(request)
        return ExportTraceServiceResponse()


def with_bytes(value):
    """The ids of OTLP's JSON are hexadecimal; those of protobuf's are base64."""
    if isinstance(value, list):
        return [with_bytes(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {key: base64.b64encode(bytes.fromhex(one)).decode() if key in IDS else with_bytes(one) for key, one in value.items()}


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        try:
            if (self.path, self.headers["content-type"]) != ("/v1/traces", "application/json"):
                raise ValueError(f"{self.path} with {self.headers['content-type']}")
            tell(ParseDict(with_bytes(json.loads(body)), ExportTraceServiceRequest()))
        except (ParseError, ValueError) as error:
            self.send_error(400, str(error))
            return
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


def main(protocol, port):
    if protocol == "http/json":
        ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
    assert protocol == "grpc", protocol
    server = grpc.server(ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Service(), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])

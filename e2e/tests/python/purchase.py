"""Buys a ticket as a client in Python does: generated stubs, gRPC's own package, OpenTelemetry's instrumentation of it.

purchase.py PROTO_FOLDER USER_ADDRESS TICKET_ADDRESS. Where traces go, and how they travel, is said by OTEL_*. Prints one line of
JSON: the order's state, the trace that this program began, and the trace that the order names.
"""

import json
import sys
import tempfile
import uuid
from pathlib import Path

import grpc
from grpc_tools import protoc
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def generate(protos: Path, out: str) -> None:
    """Makes the stubs, as `python -m grpc_tools.protoc` does."""
    files = [
        "tessera/common/v1/money.proto",
        "tessera/ticket/v1/ticket.proto",
        "tessera/user/v1/user.proto",
    ]
    args = ["protoc", f"-I{protos}", f"--python_out={out}", f"--grpc_python_out={out}", *files]
    # Its own copies of google/protobuf.
    args.insert(1, f"-I{Path(protoc.__file__).parent / '_proto'}")
    if protoc.main(args) != 0:
        sys.exit("the protos do not compile")


def main() -> None:
    protos, user_address, ticket_address = sys.argv[1:4]
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(insecure=True)))
    trace.set_tracer_provider(provider)
    GrpcInstrumentorClient().instrument()

    with tempfile.TemporaryDirectory() as stubs:
        generate(Path(protos), stubs)
        sys.path.insert(0, stubs)
        from tessera.common.v1 import money_pb2
        from tessera.ticket.v1 import ticket_pb2, ticket_pb2_grpc
        from tessera.user.v1 import user_pb2, user_pb2_grpc

        def request_id() -> str:
            return str(uuid.uuid4())

        with grpc.insecure_channel(user_address) as to_users, grpc.insecure_channel(ticket_address) as to_tickets:
            users = user_pb2_grpc.UserServiceStub(to_users)
            tickets = ticket_pb2_grpc.TicketServiceStub(to_tickets)
            with trace.get_tracer("purchase").start_as_current_span("python purchase") as span:
                trace_id = trace.format_trace_id(span.get_span_context().trace_id)
                email = f"{request_id()}@example.com"
                user = users.CreateUser(
                    user_pb2.CreateUserRequest(
                        request_id=request_id(),
                        email=email,
                        display_name="Guido",
                        password="correct horse",
                    ),
                    timeout=30,
                ).user
                session = users.SignIn(
                    user_pb2.SignInRequest(email=email, password="correct horse"),
                    timeout=30,
                )
                shown = [("authorization", f"Bearer {session.session_token}")]
                users.TopUp(
                    user_pb2.TopUpRequest(
                        request_id=request_id(),
                        user_id=user.id,
                        amount=money_pb2.Money(currency_code="EUR", minor_units=5_000_000),
                    ),
                    timeout=30,
                    metadata=shown,
                )
                event = tickets.ListEvents(ticket_pb2.ListEventsRequest(), timeout=30).events[0]
                order = users.BuyTicket(
                    user_pb2.BuyTicketRequest(
                        request_id=request_id(),
                        user_id=user.id,
                        event_id=event.id,
                        best_available=user_pb2.BestAvailable(quantity=1),
                    ),
                    timeout=30,
                    metadata=shown,
                ).order
        state = user_pb2.OrderState.Name(order.state)
    provider.shutdown()
    print(json.dumps({"state": state, "trace_id": trace_id, "order_trace_id": order.trace_id}))


if __name__ == "__main__":
    main()

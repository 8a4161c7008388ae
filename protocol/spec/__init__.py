"""The specifications, generated from the models: AsyncAPI for WebSocket and NATS, OpenAPI for HTTP. No I/O."""

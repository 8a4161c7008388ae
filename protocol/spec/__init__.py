"""The specifications, made from the models: AsyncAPI for WebSocket and NATS, OpenAPI for HTTP. Plain data, no I/O."""

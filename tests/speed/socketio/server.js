// A socket server of Socket.IO: tells the proctors of a plan, on whatever server, who has come and who is gone.
// Environment: REDIS_URL, SECRET of the tokens, SERVER_ID. Prints its address as a JSON line.

import { createSecretKey } from "node:crypto";
import { createServer } from "node:http";
import { createAdapter } from "@socket.io/redis-streams-adapter";
import jwt from "jsonwebtoken";
import { createClient } from "redis";
import { Server } from "socket.io";

const { REDIS_URL, SECRET, SERVER_ID } = process.env;
// With a string, jsonwebtoken would first try to parse it as a public key at each token: 0.5 ms.
const key = createSecretKey(SECRET, "utf8");
const redis = createClient({ url: REDIS_URL });
await redis.connect();
const http = createServer();
const io = new Server(http, { adapter: createAdapter(redis), transports: ["websocket"], serveClient: false });
// The documentation recommends both for the memory of a connection (socket.io/docs/v4/memory-usage).
io.engine.on("connection", (raw) => {
  raw.request = null;
});

let version = Date.now() * 1000;

io.use((socket, next) => {
  try {
    const { role, plan, sub } = jwt.verify(socket.handshake.auth.token, key, { algorithms: ["HS256"], audience: "examwire" });
    socket.data = { role, plan, sub };
    next();
  } catch (error) {
    next(error);
  }
});

io.on("connection", (socket) => {
  const { role, plan, sub } = socket.data;
  const proctors = `proctors:${plan}`;
  const welcome = { role, planId: plan, socketId: socket.id, serverId: SERVER_ID };
  if (role === "proctor") {
    socket.join(proctors);
    socket.emit("welcome", welcome);
    return;
  }
  const tell = (type, more) =>
    io.to(proctors).emit(type, {
      planId: plan,
      examineeId: sub,
      socketId: socket.id,
      serverId: SERVER_ID,
      timestamp: new Date().toISOString(),
      version: ++version,
      ...more,
    });
  const { address, headers } = socket.handshake;
  tell("examinee_connected", { clientInfo: { ipAddress: address, browserInfo: headers["user-agent"] } });
  socket.emit("welcome", welcome);
  socket.on("disconnect", (reason) => tell("examinee_disconnected", { reason }));
});

http.listen(0, "127.0.0.1", 4096, () => console.log(JSON.stringify({ url: `ws://127.0.0.1:${http.address().port}` })));

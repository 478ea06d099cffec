// The same with Express and better-sqlite3: one commit for each request, synchronous = FULL.
const crypto = require("node:crypto");
const path = require("node:path");
const { createRequire } = require("node:module");

const installed = createRequire(path.join(process.env.BENCH_NODE, "package.json"));
const express = installed("express");
const database = new (installed("better-sqlite3"))(process.env.BENCH_DATABASE);
database.pragma("journal_mode = WAL");
database.pragma("synchronous = FULL");
database.exec(`create table if not exists events (
  id integer primary key, task text not null, status text not null, received_at integer not null,
  body blob not null, unique (task, status)
)`);
const insert = database.prepare(
  "insert or ignore into events (task, status, received_at, body) values (?, ?, ?, ?)",
);

function isOurs(provider, task, token) {
  const text = `callback-url:v1:${provider}:${task}`;
  const made = crypto.createHmac("sha256", process.env.CALLBACK_SECRETS).update(text);
  const expected = Buffer.from(made.digest("base64url"));
  const given = Buffer.from(token);
  return expected.length === given.length && crypto.timingSafeEqual(expected, given);
}

const app = express();
app.use(express.raw({ type: "application/json" }));
app.post("/callbacks/:provider/:task/:token", (request, response) => {
  const { provider, task, token } = request.params;
  if (!isOurs(provider, task, token)) return response.sendStatus(404);
  const status = JSON.parse(request.body).task_status;
  const made = insert.run(task, status, Date.now(), request.body);
  return response.json({ outcome: made.changes ? "recorded" : "duplicate" });
});
app.listen(Number(process.env.BENCH_PORT), "127.0.0.1");

/** One stream out of two. */
import { PassThrough, Writable } from "node:stream";
import { text } from "node:stream/consumers";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { joinStreams } from "../../src/rpc/mod.ts";
import { rejection } from "../helpers/rejection.ts";

const test = suite("joined streams");

test("what the other side said before it stopped reading is read, and then the error is told", async () => {
  const said = new PassThrough();
  const closedPipe = new Writable({
    write: (_chunk, _encoding, done) => done(Object.assign(new Error("write EPIPE"), { code: "EPIPE" })),
  });
  const joined = joinStreams(said, closedPipe);
  const heard: string[] = [];
  joined.on("data", (chunk: Uint8Array) => heard.push(new TextDecoder().decode(chunk)));
  const ended = Promise.withResolvers<void>();
  joined.on("end", ended.resolve);
  const failed = new Promise<Error>((resolve) => joined.on("error", resolve));
  joined.write("more than is wanted");
  await new Promise<void>((resolve) => setImmediate(resolve));
  said.end("damaged\n");
  await ended.promise;
  assert.equal(heard, ["damaged\n"]);
  assert.match((await failed).message, /EPIPE/);
});

test("an error after the last word is told at once; one of the reading half as well", async () => {
  const failing = () => new Writable({ write: (_chunk, _encoding, done) => done(new Error("gone")) });
  const silent = new PassThrough();
  silent.destroy();
  await new Promise<void>((resolve) => silent.once("close", resolve));
  const late = joinStreams(silent, failing());
  const lateError = new Promise<Error>((resolve) => late.on("error", resolve));
  late.write("x");
  assert.is((await lateError).message, "gone");

  const broken = new PassThrough();
  const joined = joinStreams(broken, new PassThrough());
  broken.destroy(new Error("cannot be read"));
  assert.is((await rejection(text(joined), Error)).message, "cannot be read");
});

test.run();

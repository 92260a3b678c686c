import { chmodSync, chownSync, mkdirSync, rmSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { suite } from "uvu";
import * as assert from "uvu/assert";
import { PreconditionError } from "../../src/lib/errors.ts";
import { chooseFolders, ensureFolder, runFolder, stateFolder } from "../../src/lib/paths.ts";
import { isRoot } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";

function choose(uid: number, environment: Record<string, string>) {
  const { state, run } = chooseFolders({ environment, uid, home: "/home/u" });
  return [state.path, run.path, run.isShared];
}

function refusal(act: () => unknown): PreconditionError {
  try {
    act();
  } catch (error) {
    if (error instanceof PreconditionError) return error;
    throw error;
  }
  throw new Error("it was accepted");
}

const own = (path: string) => ({ path, isShared: false });
const shared = (path: string) => ({ path, isShared: true });
const modeOf = (path: string) => statSync(path).mode & 0o777;

const test = suite("paths");

test("chooseFolders() for root, with XDG variables ignored", () => {
  assert.equal(choose(0, {}), ["/var/lib/dlsm", "/run/dlsm", false]);
  assert.equal(choose(0, { XDG_STATE_HOME: "/x", XDG_RUNTIME_DIR: "/y" }), [
    "/var/lib/dlsm",
    "/run/dlsm",
    false,
  ]);
});

test("chooseFolders() for others follows XDG, and ignores empty and relative paths in it", () => {
  const fallback = ["/home/u/.local/state/dlsm", "/tmp/dlsm-1000", true];
  assert.equal(choose(1000, {}), fallback);
  assert.equal(choose(1000, { XDG_STATE_HOME: "", XDG_RUNTIME_DIR: "" }), fallback);
  assert.equal(choose(1000, { XDG_STATE_HOME: "a", XDG_RUNTIME_DIR: "./b" }), fallback);
  assert.equal(choose(1000, { XDG_STATE_HOME: "/s", XDG_RUNTIME_DIR: "/run/user/1000" }), [
    "/s/dlsm",
    "/run/user/1000/dlsm",
    false,
  ]);
});

test("chooseFolders() lets DLSM_STATE_DIR and DLSM_RUN_DIR win for everybody", () => {
  for (const uid of [0, 1000]) {
    const environment = { DLSM_STATE_DIR: "/a/state", DLSM_RUN_DIR: "/a/run", XDG_RUNTIME_DIR: "/y" };
    assert.equal(choose(uid, environment), ["/a/state", "/a/run", false]);
  }
  assert.is(choose(0, { DLSM_STATE_DIR: "state" })[0], join(process.cwd(), "state"));
});

test("stateFolder() and runFolder() make what the environment names", () => {
  const folder = tempFolder();
  const before = { ...process.env };
  process.env.DLSM_STATE_DIR = join(folder, "deep", "state");
  process.env.DLSM_RUN_DIR = join(folder, "run");
  try {
    assert.is(stateFolder(), join(folder, "deep", "state"));
    assert.is(runFolder(), join(folder, "run"));
    assert.is(stateFolder(), join(folder, "deep", "state"));
    for (const made of ["deep", "deep/state", "run"]) assert.is(modeOf(join(folder, made)), 0o700, made);
    rmSync(join(folder, "run"), { recursive: true });
    writeFileSync(join(folder, "run"), "");
    const error = refusal(runFolder);
    assert.match(error.message, `the run folder ${join(folder, "run")} is not a folder`);
    assert.match(error.hint!, "DLSM_RUN_DIR");
  } finally {
    for (const name of ["DLSM_STATE_DIR", "DLSM_RUN_DIR"]) {
      if (before[name] === undefined) delete process.env[name];
      else process.env[name] = before[name];
    }
  }
});

test("ensureFolder() makes mode 0700 whatever the umask", () => {
  const folder = tempFolder();
  const before = process.umask(0o777);
  try {
    ensureFolder(own(join(folder, "a")));
  } finally {
    process.umask(before);
  }
  assert.is(modeOf(join(folder, "a")), 0o700);
});

test("ensureFolder() refuses a folder that others may write to, and in a shared place one they may enter", () => {
  const path = join(tempFolder(), "a");
  mkdirSync(path);
  chmodSync(path, 0o755);
  ensureFolder(own(path));
  assert.is(modeOf(path), 0o755);
  assert.match(refusal(() => ensureFolder(shared(path))).message, "mode 0755");
  for (const mode of [0o777, 0o770, 0o1777]) {
    chmodSync(path, mode);
    const error = refusal(() => ensureFolder(own(path)));
    assert.match(error.message, "open to other users");
    assert.match(error.hint!, "chmod 700");
  }
  chmodSync(path, 0o700);
  ensureFolder(shared(path));
});

test("ensureFolder() follows a link except in a shared place", () => {
  const folder = tempFolder();
  mkdirSync(join(folder, "real"), { mode: 0o700 });
  symlinkSync(join(folder, "real"), join(folder, "link"));
  ensureFolder(own(join(folder, "link")));
  assert.match(refusal(() => ensureFolder(shared(join(folder, "link")))).message, "is not a folder");
  symlinkSync(join(folder, "nowhere"), join(folder, "dangling"));
  refusal(() => ensureFolder(own(join(folder, "dangling"))));
});

test("ensureFolder() refuses a folder of somebody else", () => {
  if (!isRoot) {
    assert.match(refusal(() => ensureFolder(own("/usr"))).message, "another user (uid 0)");
    return;
  }
  const path = join(tempFolder(), "a");
  mkdirSync(path, { mode: 0o700 });
  chownSync(path, 12345, 12345);
  assert.match(refusal(() => ensureFolder(own(path))).message, "another user (uid 12345)");
  assert.match(refusal(() => ensureFolder(shared(path))).message, "another user (uid 12345)");
});

test("ensureFolder() says why a folder cannot be made", () => {
  const folder = tempFolder();
  writeFileSync(join(folder, "file"), "");
  const inFile = refusal(() =>
    ensureFolder(own(join(folder, "file", "a", "b")), "state folder", "DLSM_STATE_DIR")
  );
  assert.match(inFile.message, "a part of the path is not a folder");
  assert.match(inFile.hint!, "DLSM_STATE_DIR");
  // Nobody, root included, makes folders there.
  refusal(() => ensureFolder(own("/proc/dlsm/state")));
});

test.run();

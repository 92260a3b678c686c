/**
 * A wall clock that can be set while programs run, by libfaketime (package faketime): for all processes that are
 * started with its environment. What counts since the start of the machine goes on as it is, as it does when
 * somebody sets the clock.
 */
import { existsSync, globSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { until } from "./until.ts";

/** Where Debian has it; undefined if it is not installed. */
export const libraryOfFaketime: string | undefined = globSync("/usr/lib/*/faketime/libfaketime.so.1")[0];

export interface FakeClock {
  readonly environment: Record<string, string>;
  /** Sets it to so many seconds from the real time; takes effect at once. */
  set(offsetSeconds: number): void;
}

/** `folder`: of the test. */
export async function withFakeClock<T>(folder: string, body: (clock: FakeClock) => Promise<T>): Promise<T> {
  const offset = join(folder, "clock");
  const set = (offsetSeconds: number) =>
    writeFileSync(offset, `${offsetSeconds < 0 ? "" : "+"}${offsetSeconds}\n`);
  set(0);
  const environment = {
    LD_PRELOAD: libraryOfFaketime!,
    FAKETIME_TIMESTAMP_FILE: offset,
    FAKETIME_NO_CACHE: "1",
    DONT_FAKE_MONOTONIC: "1",
    FAKETIME_DONT_FAKE_MONOTONIC: "1",
    FAKETIME_DONT_RESET: "1",
    NO_FAKE_STAT: "1",
  };
  // The library's shared memory belongs to the first process, and must outlive all others.
  const owner = execa("cat", [], { env: environment, reject: false, stdin: "pipe" });
  try {
    await until(() => existsSync(`/dev/shm/faketime_shm_${owner.pid}`), "the fake clock is there");
    const shared = `/faketime_sem_${owner.pid} /faketime_shm_${owner.pid}`;
    return await body({ environment: { ...environment, FAKETIME_SHARED: shared }, set });
  } finally {
    owner.stdin!.end();
    await owner;
  }
}

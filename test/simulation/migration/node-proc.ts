/** The files of /proc that tell of simulated processes. */
import { type AnyNode, failure } from "./file-system.ts";
import { current, type Process } from "./world.ts";

/** A file's text, or a folder's names. Throws ENOENT. */
export function readProc(path: string): string | string[] {
  const { host } = current();
  if (path === "/proc") return [...host.processes.keys()].map(String);
  if (path === "/proc/sys/kernel/random/boot_id") return `${host.bootId}\n`;
  const [, pid, name, descriptor] = /^\/proc\/(\d+)\/(\w+)(?:\/(\d+))?$/.exec(path) ?? [];
  const process = host.processes.get(Number(pid));
  if (process === undefined) throw failure("ENOENT", path);
  const stat = `${process.pid} (node) S ${"0 ".repeat(18)}${process.pid} 0\n`;
  if (name === "stat") return stat;
  if (name === "cmdline") return `${process.kind}\0${process.args.join("\0")}\0`;
  if (name === "fd") return descriptorsOf(process).map(String);
  if (name === "fdinfo") {
    const file = host.files.open.get(Number(descriptor));
    return `flags:\t0${file?.isForWriting === true ? "2" : "0"}\n`;
  }
  throw failure("ENOENT", path);
}

/** What `/proc/PID/fd/N` leads to. */
export function readLinkOf(path: string): AnyNode | undefined {
  const [, pid, descriptor] = /^\/proc\/(\d+)\/fd\/(\d+)$/.exec(path) ?? [];
  const { host } = current();
  const file = host.files.open.get(Number(descriptor));
  return file?.process.pid === Number(pid) ? file.node : undefined;
}

function descriptorsOf(process: Process): number[] {
  return [...process.host.files.open.values()].filter((file) => file.process === process)
    .map(({ descriptor }) => descriptor);
}

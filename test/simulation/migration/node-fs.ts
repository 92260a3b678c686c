/** What the code under simulation gets for `node:fs`: the files of the host that its process runs on. */
import { Buffer } from "node:buffer";
import { constants } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { type AnyNode, failure, FileNode, type FileSystem, FolderNode } from "./file-system.ts";
import { readLinkOf, readProc } from "./node-proc.ts";
import { current, Killed, world } from "./world.ts";

export { constants };

function here(): FileSystem {
  const process = current();
  if (process.isDead) throw new Killed();
  return process.host.files;
}

const isProc = (path: string) => path.startsWith("/proc") || path.startsWith("/sys");

/** A change of files, before and after which faults may come. */
function change<T>(what: string, work: (files: FileSystem) => T): T {
  here();
  return world().act(what, () => work(here()));
}

export class Stats {
  readonly #node: AnyNode;
  readonly #isBig: boolean;

  constructor(node: AnyNode, isBig: boolean) {
    this.#node = node;
    this.#isBig = isBig;
  }

  #number(value: number): number {
    return (this.#isBig ? BigInt(value) : value) as number;
  }
  get #data(): Buffer {
    return this.#node instanceof FileNode ? this.#node.data : Buffer.alloc(0);
  }
  get size() {
    return this.#number(this.#data.length);
  }
  get mode() {
    return this.#number(this.#node.mode);
  }
  get ino() {
    return this.#number(this.#node.ino);
  }
  get dev() {
    return this.#number(7);
  }
  get rdev() {
    return this.#number(0);
  }
  get uid() {
    return this.#number(0);
  }
  get blocks() {
    return this.#number(this.#data.some((byte) => byte !== 0) ? Math.ceil(this.#data.length / 512) : 0);
  }
  get mtimeNs() {
    return this.#number(Math.round(this.#node instanceof FileNode ? this.#node.mtimeMs * 1e6 : 0));
  }
  isFile() {
    return this.#node instanceof FileNode;
  }
  isDirectory() {
    return this.#node instanceof FolderNode;
  }
  isBlockDevice() {
    return false;
  }
  isSocket() {
    return false;
  }
}

interface StatOptions {
  readonly bigint?: boolean;
  readonly throwIfNoEntry?: boolean;
}

export function statSync(path: string, { bigint = false, throwIfNoEntry = true }: StatOptions = {}) {
  const files = here();
  const node = isProc(path) ? readLinkOf(path) : files.find(path);
  if (node !== undefined) return new Stats(node, bigint);
  if (throwIfNoEntry) throw failure("ENOENT", path);
  return undefined;
}
export const lstatSync = statSync;

export function fstatSync(descriptor: number, { bigint = false }: StatOptions = {}) {
  return new Stats(here().handle(descriptor).node, bigint);
}

export function existsSync(path: string): boolean {
  return !isProc(path) && here().find(path) !== undefined;
}

export function accessSync(path: string): void {
  here().get(path);
}

export function realpathSync(path: string): string {
  here().get(path);
  return resolve(path);
}

export function readlinkSync(path: string): string {
  if (path === "/proc/self/ns/net") return `net:[${current().host.name}]`;
  throw failure("EINVAL", path);
}

export function statfsSync(path: string) {
  here().get(path);
  return { bavail: 1e9, bsize: 4096 };
}

export function readdirSync(path: string): string[] {
  const files = here();
  if (isProc(path)) return readProc(path) as string[];
  return [...files.folder(path).entries.keys()].sort();
}

export function mkdirSync(path: string, { mode = 0o777 }: { readonly mode?: number } = {}): void {
  change(`mkdir ${path}`, (files) => {
    const parent = files.parent(path);
    if (parent.entries.has(basename(path))) throw failure("EEXIST", path);
    parent.entries.set(basename(path), files.newFolder(mode));
  });
}

export function chmodSync(path: string, mode: number): void {
  const node = here().get(path);
  if (node.mode === mode) return;
  change(`chmod ${path}`, () => (node.mode = mode));
}

export function openSync(path: string, flags: string | number = "r", mode = 0o666): number {
  const files = here();
  const isForWriting = typeof flags === "number" ? (flags & 3) !== 0 : flags !== "r";
  const isMaking = typeof flags === "string" && /[wa]/.test(flags);
  const known = files.find(path);
  if (known === undefined && !isMaking) throw failure("ENOENT", path);
  if (known !== undefined && String(flags).includes("x")) throw failure("EEXIST", path);
  if (known instanceof FolderNode && isForWriting) throw failure("EISDIR", path);
  if (known instanceof FileNode && known.isImmutable && isForWriting) throw failure("EPERM", path);
  const how = { isForWriting, isAppending: String(flags).startsWith("a") };
  if (known === undefined) {
    return change(`make ${path}`, () => {
      const made = files.newFile(mode);
      files.parent(path).entries.set(basename(path), made);
      return files.opened(made, current(), how);
    });
  }
  if (known instanceof FileNode && String(flags).startsWith("w") && known.data.length > 0) {
    change(`empty ${path}`, () => files.truncate(known, 0));
  }
  return files.opened(known, current(), how);
}

export function closeSync(descriptor: number): void {
  here().close(descriptor);
}

export function fsyncSync(descriptor: number): void {
  change("fsync", (files) => files.sync(files.handle(descriptor).node));
}
export const fdatasyncSync = fsyncSync;

export function readSync(
  descriptor: number,
  buffer: Uint8Array,
  offset = 0,
  length = buffer.length - offset,
  position: number | null = null,
): number {
  const file = here().handle(descriptor);
  const { data } = file.node as FileNode;
  const at = position ?? file.position;
  const piece = data.subarray(at, at + length);
  buffer.set(piece, offset);
  if (position === null) file.position += piece.length;
  return piece.length;
}

export function writeSync(
  descriptor: number,
  data: Uint8Array | string,
  offset = 0,
  length = data.length - offset,
  position: number | null = null,
): number {
  const bytes = Buffer.from(data as string).subarray(offset, offset + length);
  return change("write", (files) => {
    const file = files.handle(descriptor);
    if (!file.isForWriting) throw failure("EBADF", String(descriptor));
    const node = file.node as FileNode;
    const at = file.isAppending ? node.data.length : position ?? file.position;
    files.write(node, bytes, at);
    if (position === null) file.position = at + bytes.length;
    return bytes.length;
  });
}

export function ftruncateSync(descriptor: number, length: number): void {
  change("truncate", (files) => files.truncate(files.handle(descriptor).node as FileNode, length));
}

export function truncateSync(path: string, length: number): void {
  change(`truncate ${path}`, (files) => files.truncate(files.file(path), length));
}

export function readFileSync(path: string | number, options?: string | { readonly encoding?: string }) {
  const files = here();
  const isText = options !== undefined;
  if (typeof path === "string" && isProc(path)) return readProc(path) as string;
  const node = typeof path === "number" ? files.handle(path).node : files.file(path);
  const { data } = node as FileNode;
  return isText ? data.toString() : Buffer.from(data);
}

export function writeFileSync(path: string | number, data: string | Uint8Array): void {
  if (typeof path === "number") return void writeSync(path, data);
  const descriptor = openSync(path, "w");
  writeSync(descriptor, data);
  closeSync(descriptor);
}

export function renameSync(from: string, to: string): void {
  change(`rename ${from} ${to}`, (files) => {
    const node = files.get(from);
    const replaced = files.find(to);
    if (replaced instanceof FolderNode && replaced.entries.size > 0) throw failure("ENOTEMPTY", to);
    refuseImmutable(node, from);
    files.parent(from).entries.delete(basename(from));
    files.parent(to).entries.set(basename(to), node);
  });
}

export function linkSync(from: string, to: string): void {
  change(`link ${to}`, (files) => {
    if (files.find(to) !== undefined) throw failure("EEXIST", to);
    files.parent(to).entries.set(basename(to), files.get(from));
  });
}

export function unlinkSync(path: string): void {
  const node = here().get(path);
  refuseImmutable(node, path);
  change(`unlink ${path}`, (files) => files.parent(path).entries.delete(basename(path)));
}

export function rmdirSync(path: string): void {
  if (here().folder(path).entries.size > 0) throw failure("ENOTEMPTY", path);
  change(`rmdir ${path}`, (files) => files.parent(path).entries.delete(basename(path)));
}

interface RmOptions {
  readonly recursive?: boolean;
  readonly force?: boolean;
}

export function rmSync(path: string, { recursive = false, force = false }: RmOptions = {}): void {
  const node = here().find(path);
  if (node === undefined) {
    if (force) return;
    throw failure("ENOENT", path);
  }
  if (node instanceof FolderNode) {
    if (!recursive) throw failure("EISDIR", path);
    // One by one, as the system does it: a kill may come in between.
    for (const name of [...node.entries.keys()]) rmSync(`${path}/${name}`, { recursive, force });
    return rmdirSync(path);
  }
  unlinkSync(path);
}

function refuseImmutable(node: AnyNode, path: string): void {
  if (node instanceof FileNode && node.isImmutable) throw failure("EPERM", path);
}

export const createReadStream = notHere;
export const createWriteStream = notHere;
export const appendFileSync = notHere;
export const fdatasync = notHere;
function notHere(): never {
  throw new Error(`nothing of this is simulated (${dirname("/")})`);
}

// --- node:fs/promises, as far as it is used ---

export async function open(path: string, flags: string | number = "r", mode?: number) {
  const descriptor = openSync(path, flags, mode);
  await world().sleep(0);
  const soon = <T>(work: () => T) => world().sleep(0).then(work);
  return {
    sync: () => soon(() => fsyncSync(descriptor)),
    stat: () => soon(() => fstatSync(descriptor)),
    chmod: (next: number) =>
      soon(() => {
        const { node } = here().handle(descriptor);
        change(`chmod ${path}`, () => (node.mode = next));
      }),
    read: (buffer: Uint8Array, offset: number, length: number, position: number) =>
      soon(() => ({ bytesRead: readSync(descriptor, buffer, offset, length, position) })),
    close: () => soon(() => closeSync(descriptor)),
  };
}

// --- src/lib/libc.ts ---

export function tryLock(descriptor: number): boolean {
  const file = here().handle(descriptor);
  if (file.node.lockedBy !== undefined) return false;
  file.node.lockedBy = file;
  return true;
}
export const fallocate = (): boolean => false;
export const seek = (): number => -1;

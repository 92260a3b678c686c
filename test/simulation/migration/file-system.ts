/**
 * One host's files, in memory. As ext4 keeps them: fsync makes the file's data durable, and every change of names
 * and modes that came before it; the rest may be lost with the power. The run folder is lost in any case.
 */
import { dirname, resolve } from "node:path";
import { Killed, type Owner } from "./killed.ts";

export class FileNode {
  readonly ino: number;
  mode: number;
  data: Buffer = Buffer.alloc(0);
  isImmutable = false;
  mtimeMs = 0;
  lockedBy: OpenFile | undefined;
  durable: { data: Buffer; mode: number; isImmutable: boolean } = {
    data: Buffer.alloc(0),
    mode: 0,
    isImmutable: false,
  };

  constructor(ino: number, mode: number) {
    this.ino = ino;
    this.mode = mode;
  }
}

export class FolderNode {
  readonly ino: number;
  mode: number;
  entries = new Map<string, AnyNode>();
  lockedBy: OpenFile | undefined;
  durable = new Map<string, AnyNode>();

  constructor(ino: number, mode: number) {
    this.ino = ino;
    this.mode = mode;
  }
}

export type AnyNode = FileNode | FolderNode;

export interface OpenFile {
  readonly descriptor: number;
  readonly node: AnyNode;
  readonly process: Owner;
  readonly isForWriting: boolean;
  readonly isAppending: boolean;
  position: number;
}

export function failure(code: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${path}`), { code, syscall: "simulated", path });
}

export class FileSystem {
  readonly #now: () => number;
  readonly root = new FolderNode(1, 0o755);
  readonly open = new Map<number, OpenFile>();
  #nextIno = 2;
  #nextDescriptor = 10;

  /** `now`: milliseconds. */
  constructor(now: () => number) {
    this.#now = now;
    for (const path of ["/data", "/run", "/usr/bin", "/state"]) this.makeFolders(path);
    for (const name of ["lsattr", "chattr"]) this.put(`/usr/bin/${name}`, Buffer.alloc(0), 0o755);
    this.commit();
  }

  /** Undefined if nothing is there. */
  find(path: string): AnyNode | undefined {
    let node: AnyNode = this.root;
    for (const name of resolve(path).split("/").filter((part) => part !== "")) {
      if (!(node instanceof FolderNode)) return undefined;
      const next = node.entries.get(name);
      if (next === undefined) return undefined;
      node = next;
    }
    return node;
  }

  get(path: string): AnyNode {
    const node = this.find(path);
    if (node === undefined) throw failure("ENOENT", path);
    return node;
  }

  folder(path: string): FolderNode {
    const node = this.get(path);
    if (!(node instanceof FolderNode)) throw failure("ENOTDIR", path);
    return node;
  }

  file(path: string): FileNode {
    const node = this.get(path);
    if (!(node instanceof FileNode)) throw failure("EISDIR", path);
    return node;
  }

  parent(path: string): FolderNode {
    return this.folder(dirname(resolve(path)));
  }

  newFile(mode: number): FileNode {
    return new FileNode(this.#nextIno++, mode);
  }

  newFolder(mode: number): FolderNode {
    return new FolderNode(this.#nextIno++, mode);
  }

  makeFolders(path: string): void {
    let node = this.root;
    for (const name of resolve(path).split("/").filter((part) => part !== "")) {
      const next = node.entries.get(name) ?? this.newFolder(0o700);
      node.entries.set(name, next);
      node = next as FolderNode;
    }
  }

  put(path: string, data: Buffer, mode = 0o600): FileNode {
    const file = this.newFile(mode);
    file.data = data;
    this.parent(path).entries.set(path.split("/").at(-1)!, file);
    this.sync(file);
    return file;
  }

  /** Paths of all files and folders below. */
  below(path: string): string[] {
    const node = this.find(path);
    if (!(node instanceof FolderNode)) return [];
    return [...node.entries.keys()].flatMap((name) => [`${path}/${name}`, ...this.below(`${path}/${name}`)]);
  }

  // --- open files ---

  opened(node: AnyNode, process: Owner, how: { isForWriting: boolean; isAppending: boolean }): number {
    const descriptor = this.#nextDescriptor++;
    this.open.set(descriptor, { descriptor, node, process, ...how, position: 0 });
    return descriptor;
  }

  handle(descriptor: number): OpenFile {
    const file = this.open.get(descriptor);
    if (file === undefined) throw failure("EBADF", String(descriptor));
    if (file.process.isDead) throw new Killed();
    return file;
  }

  close(descriptor: number): void {
    const file = this.open.get(descriptor);
    if (file === undefined) return;
    if (file.node.lockedBy === file) file.node.lockedBy = undefined;
    this.open.delete(descriptor);
  }

  closeAll(process: Owner): void {
    for (const file of [...this.open.values()]) if (file.process === process) this.close(file.descriptor);
  }

  write(file: FileNode, data: Uint8Array, at: number): void {
    const end = at + data.length;
    const bytes = Buffer.alloc(Math.max(end, file.data.length));
    file.data.copy(bytes);
    bytes.set(data, at);
    file.data = bytes;
    file.mtimeMs = this.#now();
  }

  truncate(file: FileNode, length: number): void {
    const bytes = Buffer.alloc(length);
    file.data.copy(bytes, 0, 0, length);
    file.data = bytes;
    file.mtimeMs = this.#now();
  }

  // --- power ---

  sync(node: AnyNode): void {
    if (node instanceof FileNode) node.durable.data = Buffer.from(node.data);
    this.commit();
  }

  /** Names and modes up to now are durable. */
  commit(node: AnyNode = this.root): void {
    if (node instanceof FileNode) {
      node.durable.mode = node.mode;
      node.durable.isImmutable = node.isImmutable;
      return;
    }
    node.durable = new Map(node.entries);
    for (const each of node.entries.values()) this.commit(each);
  }

  lose(isLossy: boolean): void {
    this.open.clear();
    if (isLossy) this.#revert(this.root);
    this.#unlock(this.root);
    const run = this.root.entries.get("run") as FolderNode;
    run.entries = new Map();
    this.commit();
  }

  #revert(node: AnyNode): void {
    if (node instanceof FileNode) {
      node.data = Buffer.from(node.durable.data);
      node.mode = node.durable.mode;
      node.isImmutable = node.durable.isImmutable;
      return;
    }
    node.entries = new Map(node.durable);
    for (const each of node.entries.values()) this.#revert(each);
  }

  #unlock(node: AnyNode): void {
    node.lockedBy = undefined;
    if (node instanceof FolderNode) { for (const each of node.entries.values()) this.#unlock(each); }
  }
}

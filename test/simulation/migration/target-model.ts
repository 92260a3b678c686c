/**
 * A tgtd as the source role knows it (node-iscsi-target/mod.ts): one process in one folder, one portal, one disk.
 * Its state file is written when it serves; one that was cut short before is a stray.
 */
import { FileNode } from "./file-system.ts";
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "./node-fs.ts";
import { current, type Host, type Process, type Target, world } from "./world.ts";

export class TgtError extends Error {
  readonly reason: string;
  readonly hint: string | undefined;

  constructor(reason: string, message: string) {
    super(message);
    this.reason = reason;
  }
}

export function isTgtError(error: unknown, ...reasons: string[]): error is TgtError {
  return error instanceof TgtError && (reasons.length === 0 || reasons.includes(error.reason));
}

class TargetModel implements Target {
  readonly process: Process;
  readonly folder: string;
  readonly address: string;
  readonly port: number;
  exported: { readonly name: string; readonly disk: FileNode; readonly allow: string } | undefined;

  constructor(process: Process, folder: string, portal: { readonly address: string; readonly port: number }) {
    this.process = process;
    this.folder = folder;
    ({ address: this.address, port: this.port } = portal);
  }
}

interface Portal {
  readonly address: string;
  readonly port: number;
}

class Daemon {
  readonly #target: Target;

  constructor(target: Target) {
    this.#target = target;
  }

  get pid(): number {
    return this.#target.process.pid;
  }

  isAlive(): boolean {
    return !this.#target.process.isDead;
  }

  async targets() {
    await world().sleep(2);
    this.#refuseDead();
    const { exported } = this.#target;
    return exported === undefined ? [] : [{ tid: 1, name: exported.name }];
  }

  async connections() {
    await world().sleep(2);
    this.#refuseDead();
    return clientsOf(this.#target);
  }

  async exportDisk(options: { readonly path: string; readonly targetName: string; readonly allow: string }) {
    await world().sleep(20);
    this.#refuseDead();
    const disk = current().host.files.file(options.path);
    // As tgtd, which tries to open it for writing first, and does not try again after EPERM.
    if (disk.isImmutable) throw new TgtError("badDisk", `tgtd cannot open ${options.path}: EPERM`);
    world().act("tgtd: target", () => {
      this.#target.exported = { name: options.targetName, disk, allow: options.allow };
    });
    return { portal: { address: this.#target.address, port: this.#target.port } };
  }

  async stop(): Promise<void> {
    await world().sleep(10);
    await this.kill();
  }

  async kill(): Promise<void> {
    killTarget(this.#target);
    await world().sleep(1);
    rmSync(this.#target.folder, { recursive: true, force: true });
  }

  #refuseDead(): void {
    if (this.#target.process.isDead) throw new TgtError("noDaemon", "no tgtd answers");
  }
}

function killTarget(target: Target): void {
  if (!target.process.isDead) {
    world().act("kill tgtd", () => world().end(target.process, "ended by its role"));
  }
}

export async function startDaemon(
  options: { readonly folder: string; readonly portal: Portal },
): Promise<Daemon> {
  const { host } = current();
  const { folder, portal } = options;
  if (!existsSync(folder)) mkdirSync(folder, { mode: 0o700 });
  if (await adoptDaemon(folder) !== undefined) {
    throw new TgtError("alreadyRunning", `a tgtd runs in ${folder}`);
  }
  await endStrays(folder);
  if (portal.port !== 0 && isTaken(host, portal.port)) {
    rmSync(folder, { recursive: true, force: true });
    throw new TgtError("portInUse", `port ${portal.port} is in use`);
  }
  let port = portal.port;
  while (port === 0 || isTaken(host, port)) port = 30_000 + world().below(20_000);
  const target = world().act("start tgtd", () => launch(host, folder, { ...portal, port }));
  await world().sleep(15);
  if (target.process.isDead) throw new TgtError("startFailed", "tgtd ended at once");
  writeFileSync(`${folder}/state.json`, JSON.stringify({ pid: target.process.pid, bootId: host.bootId }));
  return new Daemon(target);
}

function launch(host: Host, folder: string, portal: Portal): TargetModel {
  const process = world().spawn(host, { kind: "tgtd", args: [folder] }, () => new Promise(() => {}));
  const target = new TargetModel(process, folder, portal);
  host.targets.set(process.pid, target);
  process.ends.push(() => host.targets.delete(process.pid));
  return target;
}

const isTaken = (host: Host, port: number) => [...host.targets.values()].some((each) => each.port === port);

export function adoptDaemon(folder: string): Promise<Daemon | undefined> {
  const target = targetsIn(folder).find(({ process }) => process.pid === statedPid(folder));
  return Promise.resolve(target && new Daemon(target));
}

function statedPid(folder: string): number | undefined {
  try {
    const { pid, bootId } = JSON.parse(readFileSync(`${folder}/state.json`, "utf8") as string);
    return bootId === current().host.bootId ? pid : undefined;
  } catch {
    return undefined;
  }
}

export async function endStrays(folder: string): Promise<void> {
  const stated = statedPid(folder);
  for (const target of targetsIn(folder)) if (target.process.pid !== stated) killTarget(target);
  await world().sleep(1);
}

function targetsIn(folder: string): Target[] {
  return [...current().host.targets.values()].filter((target) => target.folder === folder);
}

export function inspectDisk(path: string) {
  const { data } = current().host.files.file(path);
  if (data.length === 0) throw new TgtError("badDisk", `${path} is empty`);
  return { sizeBytes: data.length, blockBytes: 512 };
}

// --- what the engine's model sees of it ---

/** The disk behind the portal, if `from` can log in there now. */
export function exportedDisk(
  from: Host,
  wanted: { readonly address: string; readonly port: number; readonly targetName: string },
): FileNode | undefined {
  const there = wanted.address.startsWith("127.") ? from : world().named(wanted.address);
  if (there === undefined || !there.isUp || (there !== from && world().link(from, there) !== "up")) {
    return undefined;
  }
  const target = [...there.targets.values()].find(({ port, exported }) =>
    port === wanted.port && exported?.name === wanted.targetName
  );
  const allowed = there === from ? wanted.address : from.address;
  return target?.exported?.allow === allowed ? target.exported.disk : undefined;
}

function clientsOf(target: Target): unknown[] {
  return [...world().hosts.values()].flatMap((host) => [...host.listeners.values()])
    .filter((engine) => engine.isConnectedTo(target));
}

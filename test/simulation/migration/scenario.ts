/** One run: a migration, who uses its disk, what its user does meanwhile, what goes wrong, and how it has to end. */
import { Buffer } from "node:buffer";
import type { Code } from "./bundle.ts";
import { recordsOf } from "./records.ts";
import { chooseFaults, type Fault, strike } from "./faults.ts";
import { content, Guest } from "./guest.ts";
import { current, type Host, type Process, type World } from "./world.ts";

const blockCount = 5;
/** So long faults and the user's commands may come. */
const troubleMs = 8_000;

export interface Choices {
  readonly controller: string;
  readonly source: string;
  readonly destination: string;
  readonly disks: number;
  readonly handoff: "now" | "manual" | "command";
  readonly activation: "explicit" | "first-write";
  readonly flags: readonly string[];
  readonly writes: number;
  readonly faults: readonly Fault[];
  readonly commands: readonly UserCommand[];
  /** What the user wants in the end, where it can be had. */
  readonly goal: "done" | "aborted";
}

export interface UserCommand {
  readonly atMs: number;
  readonly host: string;
  readonly name: "resume" | "abort" | "activate" | "pause" | "status" | "cutover" | "failback";
  readonly flags: readonly string[];
}

export interface CommandEnd {
  readonly process: Process;
  error?: Error & { readonly hint?: string; readonly exitCode?: number };
  isOver: boolean;
  readonly output: string[];
}

/** Everything that is chosen by chance. */
export function choose(world: World): Choices {
  const [source, destination] = world.below(5) === 0 ? ["a", "a"] : ["a", "b"];
  const controller = source === destination ? source : world.pick(["a", "b", "c"]);
  const handoff = world.pick(["now", "now", "manual", "command"] as const);
  const activation = handoff === "manual" && world.below(3) === 0 ? "first-write" : "explicit";
  const flags = ["verify", "hold-cutover", "keep-source", "detach", "bwlimit"].filter(() =>
    world.below(4) === 0
  );
  const names = [
    "resume",
    "resume",
    "abort",
    "abort",
    "activate",
    "pause",
    "status",
    "cutover",
    "failback",
  ] as const;
  const commands = Array.from({ length: world.pick([0, 0, 1, 2, 4, 6]) }, () => {
    const name = world.pick(names);
    const isForced = (name === "abort" || name === "resume") && world.below(8) === 0;
    const isDetached = name === "resume" && world.below(2) === 0;
    return {
      atMs: world.below(world.pick([400, 1_500, troubleMs])),
      host: world.pick([controller, source, destination] as const)!,
      name,
      flags: [...isForced ? ["force"] : [], ...isDetached ? ["detach"] : []],
    };
  });
  return {
    controller,
    source: source!,
    destination: destination!,
    disks: world.pick([1, 1, 1, 2]),
    handoff,
    activation,
    flags,
    writes: world.below(12),
    faults: chooseFaults(world, world.pick([0, 1, 1, 2, 3])),
    commands,
    goal: world.pick(["done", "done", "aborted"]),
  };
}

export class Scenario {
  readonly world: World;
  readonly choices: Choices;
  readonly guests: Guest[] = [];
  readonly originals: Buffer[] = [];
  readonly ids = new Set<string>();
  readonly places: string[] = [];
  wasForced = false;
  wentBack = false;
  #hasBegun = false;

  constructor(world: World, choices: Choices) {
    this.world = world;
    this.choices = choices;
    const { source, destination, handoff, writes } = choices;
    for (let disk = 0; disk < choices.disks; disk++) {
      const blocks = Array.from({ length: blockCount }, (_, at) => content(`source ${disk} ${at}`));
      const data = Buffer.concat(blocks);
      world.host(source).files.put(this.sourcePath(disk), data, 0o640);
      const guest = new Guest(world, this.destinationPath(disk), blocks, writes);
      if (handoff !== "now") guest.useSource(world.host(source), this.sourcePath(disk));
      this.guests.push(guest);
      this.originals.push(Buffer.from(data));
    }
    world.host(destination).files.commit();
    world.onCommand = () => this.leaveSources();
    world.onMoment = (moment, what) => this.#moment(moment, what);
    world.onActivate = (id) => this.#activated(id);
  }

  sourcePath = (disk: number): string => `/data/src${disk}.img`;
  destinationPath = (disk: number): string => `/data/dst${disk}.img`;

  leaveSources(): void {
    for (const guest of this.guests) guest.leaveSource();
  }

  #moment(moment: number, what: string): void {
    this.places.push(what);
    for (const fault of this.choices.faults) {
      if (fault.moment !== moment) continue;
      strike(this.world, fault, current(), (host) => {
        if (host.name === this.choices.destination || this.wentBack) {
          for (const guest of this.guests) guest.lost();
        }
      });
    }
  }

  /** Every source must be fenced before the first volume is activated; a first write comes unasked. */
  #activated(id: string): void {
    if (this.choices.activation === "first-write" || this.wentBack || this.wasForced) return;
    for (let disk = 0; disk < this.choices.disks; disk++) {
      const { mode } = this.world.host(this.choices.source).files.file(this.sourcePath(disk));
      if ((mode & 0o222) !== 0) {
        this.world.violate(`${id} is activated, and ${this.sourcePath(disk)} is not fenced`);
      }
    }
  }

  /** A command of a user's; its end is noted. */
  start(
    host: Host,
    name: keyof Code & string,
    args: Record<string, unknown>,
    rawArgs: string[] = [],
  ): CommandEnd {
    const output: string[] = [];
    const command = this.world.code[name as "resume"];
    const text = `${name} ${
      Object.entries(args).map(([key, value]) => value === true ? `--${key}` : `${value}`).join(" ")
    }`;
    const how = { kind: "command", args: [text, ...rawArgs], log: (line: string) => void output.push(line) };
    const process = this.world.spawn(host, how, async () => {
      try {
        await command.run({ args: { json: true, ...args }, rawArgs });
      } catch (error) {
        if (process.isDead) return;
        end.error = error as Error;
        this.world.say(`  ${text}: ${(error as Error).message} (${(error as { hint?: string }).hint})`);
        if (!(error instanceof this.world.code.errors.DlsmError)) {
          this.world.violate(`${text}: a bug: ${(error as Error).stack}`);
        }
      }
    });
    const end: CommandEnd = { process, isOver: false, output };
    process.ends.push(() => (end.isOver = true));
    return end;
  }

  migrate(): CommandEnd {
    const { controller, source, destination, handoff, activation, flags, disks } = this.choices;
    const place = (host: string, path: string) => host === controller ? path : `root@${host}:${path}`;
    const pairs = Array.from({ length: disks }, (_, disk) => [
      place(source, this.sourcePath(disk)),
      place(destination, this.destinationPath(disk)),
    ]);
    const args: Record<string, unknown> = { activate: activation, "block-size": "4KiB" };
    for (const flag of flags) args[flag] = flag === "bwlimit" ? "100MiB/s" : true;
    if (handoff === "command") args["handoff-command"] = "move it";
    else args.handoff = handoff;
    const rawArgs = disks === 1 ? [] : pairs.flatMap(([from, to]) => ["--disk", `${from}=${to}`]);
    if (disks === 1) [args.source, args.destination] = pairs[0]!;
    return this.start(this.world.host(controller), "migrate", args, rawArgs);
  }

  /** Ids of migrations that a host has records of now. */
  known(): string[] {
    const ids = [...this.world.hosts.values()].flatMap((host) => recordsOf(host));
    for (const id of ids) this.ids.add(id);
    return [...new Set(ids)];
  }

  /** Nothing runs any more. */
  isQuiet(): boolean {
    return this.#hasBegun && [...this.world.hosts.values()].every(({ processes }) => processes.size === 0);
  }

  async trouble(): Promise<void> {
    for (const { atMs, host, name, flags } of this.choices.commands) {
      this.world.after(atMs, () => {
        const [id] = this.known();
        if (id === undefined || !this.world.host(host).isUp) return;
        if (name === "activate") this.leaveSources();
        if (name === "failback") this.wentBack = true;
        if (name === "abort" && flags.includes("force")) this.wasForced = true;
        this.start(this.world.host(host), name, {
          id,
          ...Object.fromEntries(flags.map((flag) => [flag, true])),
        });
      });
    }
    for (const guest of this.guests) guest.use();
    this.world.after(0, () => {
      this.#hasBegun = true;
      this.migrate();
    });
    if (this.choices.activation === "first-write") this.world.after(6_000, () => this.leaveSources());
    await this.world.run(() => this.isQuiet(), troubleMs);
  }
}

/** A private tgtd for these tests: one target, LUN 1 on a file, one portal on 127.0.0.1 with a free port. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { join } from "node:path";
import { findProgram } from "../helpers/needs.ts";
import { tempFolder } from "../helpers/temp.ts";

export const tgtdPrograms = ["tgtd", "tgtadm"];
const controlPort = "21";

export interface TgtdOptions {
  readonly file: string;
  readonly serial?: string;
  /** One-way CHAP of the initiator, and the target's own account for mutual CHAP. */
  readonly account?: readonly [user: string, secret: string];
  readonly outgoing?: readonly [user: string, secret: string];
  readonly digests?: boolean;
  /** 0 picks a free one; `restart` reuses it. */
  readonly port?: number;
}

export class Tgtd {
  readonly targetName = "iqn.2026-01.test:disk";
  readonly #options: TgtdOptions;
  readonly #socket = join(tempFolder("tgt"), "s");
  #child: ChildProcess | undefined;
  port = 0;

  constructor(options: TgtdOptions) {
    this.#options = options;
    process.on("exit", () => this.#child?.kill("SIGKILL"));
  }

  async start(): Promise<void> {
    const child = spawn(findProgram("tgtd")!, ["-f", "-C", controlPort, "--iscsi", "portal=127.0.0.1:0"], {
      env: { ...process.env, TGT_IPC_SOCKET: this.#socket },
      stdio: "ignore",
    });
    this.#child = child;
    const deadline = performance.now() + 10_000;
    while (this.#tryAdm("--op", "show", "--mode", "sys").status !== 0) {
      if (performance.now() > deadline) throw new Error("tgtd does not answer");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    this.#configure();
  }

  #configure(): void {
    const { file, serial = "SER1", account, outgoing, digests } = this.#options;
    const target = ["--mode", "target", "--tid", "1"];
    const unit = ["--mode", "logicalunit", "--tid", "1", "--lun", "1"];
    this.adm("--op", "new", ...target, "-T", this.targetName);
    this.adm("--op", "new", ...unit, "-b", file, "--bstype", "rdwr", "--blocksize", "512");
    this.adm("--op", "update", ...unit, "--params", `readonly=1,scsi_sn=${serial},scsi_id=id-${serial}`);
    for (const [words, option] of [[account, []], [outgoing, ["--outgoing"]]] as const) {
      if (words === undefined) continue;
      this.adm("--op", "new", "--mode", "account", "--user", words[0], "--password", words[1]);
      this.adm("--op", "bind", "--mode", "account", "--tid", "1", "--user", words[0], ...option);
    }
    for (const name of digests ? ["HeaderDigest", "DataDigest"] : []) {
      this.adm("--op", "update", ...target, "--name", name, "--value", "CRC32C");
    }
    this.adm("--op", "bind", ...target, "-I", "127.0.0.1");
    // A restart moves the portal back to the port that the initiator knows; last, when all is set up.
    const wanted = this.port || this.#options.port;
    if (wanted) this.adm("--op", "new", "--mode", "portal", "--param", `portal=127.0.0.1:${wanted}`);
    else this.port = Number(/127\.0\.0\.1:(\d+)/.exec(this.adm("--op", "show", "--mode", "portal"))![1]);
  }

  #tryAdm(...words: string[]) {
    return spawnSync(findProgram("tgtadm")!, ["-C", controlPort, "--lld", "iscsi", ...words], {
      env: { ...process.env, TGT_IPC_SOCKET: this.#socket },
      encoding: "utf8",
    });
  }

  adm(...words: string[]): string {
    const { status, stdout, stderr } = this.#tryAdm(...words);
    if (status !== 0) throw new Error(`tgtadm ${words.join(" ")}: ${stderr}`);
    return stdout;
  }

  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (child === undefined || child.exitCode !== null) return Promise.resolve();
    return new Promise((resolve) => {
      child.once("exit", () => resolve());
      child.kill("SIGKILL");
    });
  }
}

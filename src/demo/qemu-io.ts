/** A real NBD client: qemu-io, one process with one connection, told what to do line by line. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { execa } from "execa";
import { FailedError } from "../lib/errors.ts";
import { type Answer, parseAnswer, parseDump, type Verb } from "./qemu-io-answer.ts";

const prompt = "qemu-io> ";
/** Until an answer must be there; on a machine that works it takes milliseconds. */
const answerTimeoutMs = 60_000;

export interface QemuIoOptions {
  readonly program: string;
  readonly uri: string;
  /** For the data of its writes; the client's name keeps them apart from other clients'. */
  readonly folder: string;
  readonly name: string;
  readonly signal: AbortSignal;
}

type Process = ReturnType<typeof launch>;

function launch({ program, uri, folder, signal }: QemuIoOptions) {
  return execa(program, ["--format", "raw", "--discard", "unmap", uri], {
    cwd: folder,
    stdin: "pipe",
    stdout: "pipe",
    stderr: "pipe",
    buffer: false,
    // At Ctrl-C the demo ends it, not the terminal.
    detached: true,
    reject: false,
    cancelSignal: signal,
    env: { LC_ALL: "C" },
  });
}

export class QemuIo {
  readonly #process: Process;
  readonly #dataFile: { readonly name: string; readonly path: string };
  #text = "";
  #problems = "";
  #waiting: PromiseWithResolvers<string> | undefined;
  #end: FailedError | undefined;

  private constructor(options: QemuIoOptions) {
    const name = `${options.name}.data`;
    this.#dataFile = { name, path: join(options.folder, name) };
    this.#process = launch(options);
    this.#process.stdout.setEncoding("latin1").on("data", (text: string) => this.#onText(text));
    this.#process.stderr.setEncoding("latin1").on("data", (text: string) => this.#problems += text);
    // It ended: the exit says so.
    this.#process.stdin.on("error", () => {});
    void this.#process.then(() => {
      const reason = this.#problems.trim() || "without a word";
      this.#end = new FailedError(`the NBD client qemu-io ended: ${reason}`);
      this.#waiting?.reject(this.#end);
    });
  }

  /** Connects to the volume. Throws FailedError if that does not work. */
  static async connect(options: QemuIoOptions): Promise<QemuIo> {
    const client = new QemuIo(options);
    try {
      await client.#untilPrompt("connect");
    } catch (error) {
      await client.kill();
      throw error;
    }
    return client;
  }

  async read(offset: number, length: number): Promise<{ data: Buffer; latencyMs: number }> {
    const { dump, latencyMs } = await this.#request(`read -v ${offset} ${length}`, "read", offset, length);
    const data = parseDump(dump, length);
    if (data === undefined) {
      throw new FailedError(`qemu-io's dump of ${length} bytes at ${offset} is not whole`);
    }
    return { data, latencyMs };
  }

  async write(offset: number, data: Uint8Array): Promise<void> {
    const { name, path } = this.#dataFile;
    writeFileSync(path, data, { mode: 0o600 });
    await this.#request(`write -s ${name} ${offset} ${data.length}`, "wrote", offset, data.length);
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    await this.#request(`write -z ${offset} ${length}`, "wrote", offset, length);
  }

  async trim(offset: number, length: number): Promise<void> {
    await this.#request(`discard ${offset} ${length}`, "discard", offset, length);
  }

  async flush(): Promise<void> {
    const text = await this.#command("flush");
    if (text !== "") throw new FailedError(`qemu-io: flush: ${text.trim()}`);
  }

  /** Disconnects in good order. */
  async close(): Promise<void> {
    this.#process.stdin.end("quit\n");
    await this.#process;
  }

  async kill(): Promise<void> {
    this.#process.kill("SIGKILL");
    await this.#process;
  }

  async #request(command: string, verb: Verb, offset: number, length: number): Promise<Answer> {
    const text = await this.#command(command);
    const answer = parseAnswer(text, verb, offset, length);
    if (answer === undefined) throw new FailedError(`qemu-io: ${command}: ${text.trim().slice(-200)}`);
    return answer;
  }

  #command(command: string): Promise<string> {
    const answer = this.#untilPrompt(command);
    this.#process.stdin.write(`${command}\n`);
    return answer;
  }

  /** All that it says until it asks for the next command. */
  async #untilPrompt(command: string): Promise<string> {
    if (this.#end !== undefined) throw this.#end;
    const waiting = Promise.withResolvers<string>();
    this.#waiting = waiting;
    const timer = setTimeout(() => {
      waiting.reject(new FailedError(`qemu-io: ${command}: no answer within ${answerTimeoutMs / 1000} s`));
    }, answerTimeoutMs);
    try {
      return await waiting.promise;
    } finally {
      clearTimeout(timer);
      this.#waiting = undefined;
    }
  }

  #onText(text: string): void {
    this.#text += text;
    if (!this.#text.endsWith(prompt)) return;
    const answer = this.#text.slice(0, -prompt.length);
    this.#text = "";
    this.#waiting?.resolve(answer);
  }
}

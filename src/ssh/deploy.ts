/** Copying this dlsm to another host, for `--deploy`. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import type { Duplex } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import { PreconditionError } from "../lib/errors.ts";
import { connect, type SshConnection, type SshOptions } from "./connection.ts";
import { explainEnd, type Problem } from "./explain.ts";
import { answerMark, deployCommand } from "./remote-script.ts";

/** ssh did not get there, or ended half-way. */
export class SshFailedError extends PreconditionError {}

export interface Deployed {
  /** Of the program, 64 hexadecimal digits: what `deployedRoleCommand` takes. */
  readonly sha256: string;
  /** It was there already. */
  readonly wasThere: boolean;
}

export interface DeployOptions extends SshOptions {
  /** The program; default: this one. */
  readonly program?: string;
  /** Called when it is not there yet and the copying begins. */
  onCopying?(): void;
}

const maxLineLength = 2000;
/** Faster than most networks, and not much larger than the best. */
const compressionLevel = 4;

const machines: Readonly<Record<string, "Linux x86_64" | "Linux aarch64">> = {
  x64: "Linux x86_64",
  arm64: "Linux aarch64",
};

/**
 * Rejects with PreconditionError if this is not the single binary or it cannot be put there, SshFailedError
 * if ssh does not get there.
 */
export async function deploy(destination: string, options: DeployOptions = {}): Promise<Deployed> {
  const program = options.program ?? ownProgram();
  const sha256 = await hashOf(program);
  const ssh = connect(destination, { command: deployCommand(sha256, machineHere()) }, options);
  try {
    return await converse(ssh, program, sha256, options);
  } finally {
    await ssh.close();
  }
}

async function converse(
  ssh: SshConnection,
  program: string,
  sha256: string,
  options: DeployOptions,
): Promise<Deployed> {
  const nextAnswer = answersOf(ssh.stream);
  let answer = await nextAnswer();
  const isCopied = answer === "send";
  if (isCopied) {
    options.onCopying?.();
    // Where it fails, the other side says why.
    pipeline(createReadStream(program), createGzip({ level: compressionLevel }), ssh.stream).catch(() => {});
    answer = await nextAnswer();
  }
  if (answer === "have" || answer === "done") return { sha256, wasThere: answer === "have" };

  const { destination } = ssh;
  const end = await ssh.close();
  if (answer !== undefined) throw refusal(destination, answer, end.lines.at(-1));
  const problem = explainEnd(destination, end, ssh.isInteractive);
  // Its answer may be lost where it stopped reading.
  if (isCopied && problem === undefined) throw refusal(destination, "failed", end.lines.at(-1));
  throw endedEarly(destination, end.lines.at(-1), problem);
}

/** What the script there answers, one at a time; undefined at the end. */
function answersOf(stream: Duplex): () => Promise<string | undefined> {
  const answers: string[] = [];
  let rest = "";
  let isOver = false;
  let wake = () => {};
  const end = () => {
    isOver = true;
    wake();
  };
  stream.on("data", (chunk: Uint8Array) => {
    const lines = (rest + new TextDecoder().decode(chunk)).split("\n");
    rest = lines.pop()!.slice(-maxLineLength);
    const marked = lines.filter((line) => line.startsWith(answerMark));
    answers.push(...marked.map((line) => line.slice(answerMark.length).trim()));
    wake();
  });
  stream.on("end", end).on("close", end);
  return async () => {
    while (answers.length === 0 && !isOver) await new Promise<void>((resolve) => wake = resolve);
    return answers.shift();
  };
}

function endedEarly(
  host: string,
  lastLine: string | undefined,
  problem: Problem | undefined,
): SshFailedError {
  return new SshFailedError(
    problem?.message ?? `dlsm cannot be copied to ${host}: ssh ended early${said(lastLine)}`,
    { hint: problem?.hint ?? `check that commands can be run with ssh ${host}` },
  );
}

function refusal(host: string, answer: string, lastLine: string | undefined): PreconditionError {
  const [what, ...rest] = answer.split(" ");
  const detail = rest.join(" ");
  const refuse = (problem: string, hint: string) =>
    new PreconditionError(`dlsm cannot be copied to ${host}: ${problem}`, { hint });
  switch (what) {
    case "machine":
      return refuse(
        `it is made for ${machineHere()}, and ${host} is ${detail}`,
        `install the dlsm for ${detail} on ${host}`,
      );
    case "missing":
      return refuse(`there is no ${detail} on ${host}`, `install ${detail} there, or dlsm itself`);
    case "damaged":
      return refuse("it arrived damaged", "try again");
    case "start":
      return refuse(
        `it does not start there${said(detail)}`,
        `see that ${host} has libstdc++6 and libatomic1, and that ~/.cache there may hold programs`,
      );
    default:
      return refuse(
        `it cannot be written there${said(lastLine)}`,
        `see that ~/.cache on ${host} can be written and has 200 MB of space`,
      );
  }
}

function said(words: string | undefined): string {
  return words === undefined || words === "" ? "" : ` (${words})`;
}

function machineHere(): "Linux x86_64" | "Linux aarch64" {
  const machine = machines[process.arch];
  if (machine === undefined) {
    throw new PreconditionError(`dlsm cannot be copied from a ${process.arch} machine`);
  }
  return machine;
}

/** The file of this process, also if another version took its name meanwhile. */
function ownProgram(): string {
  if (process.env.DLSM_IS_BUNDLE === "1") return "/proc/self/exe";
  throw new PreconditionError("this dlsm runs from its source, which cannot be copied to other hosts", {
    hint: "use the single binary: ./install.sh builds and installs it",
  });
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path), hash);
  return hash.digest("hex");
}

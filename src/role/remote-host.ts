/**
 * Another machine's roles, over ssh. It is connected to with the first request, and again with the next one
 * after the connection was lost.
 */
import { setTimeout as sleep } from "node:timers/promises";
import { DlsmError, UnreachableError } from "../lib/errors.ts";
import {
  type LinkOptions,
  RpcClient,
  RpcClosedError,
  RpcHandshakeError,
  RpcProtocolError,
  RpcTimeoutError,
} from "../rpc/mod.ts";
import {
  checkDestination,
  connect,
  deploy,
  deployedHash,
  deployedRoleCommand,
  explainEnd,
  explainLoss,
  type Problem,
  roleCommand,
  type SshConnection,
  SshFailedError,
} from "../ssh/mod.ts";
import type { AskOptions, Host } from "./asking.ts";
import { openConversation, OtherVersionError } from "./conversation.ts";
import type { HostFacts } from "./host-messages.ts";
import type { Replies, Request, RequestName } from "./messages.ts";

export interface RemoteHostOptions {
  /** Whether ssh may ask questions; default: whether this process has a terminal on stdin. */
  readonly isInteractive?: boolean;
  /** Called with "HOST: line" for what ssh and the dlsm there say on stderr. */
  onLog?(line: string): void;
  /** Copies this dlsm there before it connects for the first time, and uses that one; default: false. */
  readonly deploy?: boolean;
  /** Heartbeats and the like. */
  readonly link?: LinkOptions;
}

/** `reach` names the host as for ssh. Throws UsageError for what cannot. */
export function remoteHost(reach: string, options: RemoteHostOptions = {}): Host {
  checkDestination(reach);
  return new RemoteHost(reach, options);
}

interface Conversation {
  readonly ssh: SshConnection;
  readonly client: RpcClient;
}

/** Somebody has to type a password. */
const interactiveHandshakeMs = 10 * 60_000;
const handshakeMs = 30_000;
/** What ssh says about its end comes a little after it. */
const lastWordsMs = 2000;

class RemoteHost implements Host {
  readonly reach: string;
  readonly #options: RemoteHostOptions;
  readonly #isInteractive: boolean;
  #conversation: Promise<Conversation> | undefined;
  /** Of a conversation that is being begun. */
  #opening: SshConnection | undefined;
  #facts: Promise<HostFacts> | undefined;
  /** Of the dlsm that was copied there. */
  #deployed: string | undefined;
  #wasReached = false;
  #isClosed = false;

  constructor(reach: string, options: RemoteHostOptions) {
    this.reach = reach;
    this.#options = options;
    this.#isInteractive = options.isInteractive ?? process.stdin.isTTY === true;
  }

  async ask<Name extends RequestName>(
    name: Name,
    request: Request<Name>,
    { timeoutMs, signal }: AskOptions = {},
  ): Promise<Replies[Name]> {
    const startedAt = performance.now();
    const { client, ssh } = await this.#connected(timeoutMs, signal);
    const left = timeoutMs === undefined ? {} : {
      timeoutMs: Math.max(1, Math.round(timeoutMs - (performance.now() - startedAt))),
    };
    try {
      return await client.call(name, request, { signal, ...left }) as Replies[Name];
    } catch (error) {
      if (!(error instanceof RpcClosedError) && !(error instanceof RpcProtocolError)) throw error;
      throw await this.#lost(ssh, error);
    }
  }

  facts(options?: AskOptions): Promise<HostFacts> {
    if (this.#facts === undefined) {
      const facts = this.ask("host.describe", {}, options);
      this.#facts = facts;
      facts.catch(() => {
        if (this.#facts === facts) this.#facts = undefined;
      });
    }
    return this.#facts;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    // Nobody waits for an answer that may not come.
    this.#opening?.kill();
    const conversation = await this.#conversation?.catch(() => undefined);
    if (conversation === undefined) return;
    conversation.client.close();
    await conversation.ssh.close();
  }

  /** The conversation, begun if there is none. */
  async #connected(timeoutMs?: number, signal?: AbortSignal): Promise<Conversation> {
    if (this.#isClosed) throw this.#unreachable(`the connection to ${this.reach} was closed`, undefined);
    signal?.throwIfAborted();
    if (this.#conversation === undefined) {
      const opening = this.#open();
      this.#conversation = opening;
      const forget = () => {
        if (this.#conversation === opening) this.#conversation = this.#facts = undefined;
      };
      opening.then(({ client }) => client.closed).then(forget, forget);
    }
    return await within(this.#conversation, this.reach, timeoutMs, signal);
  }

  async #open(): Promise<Conversation> {
    const command = await this.#command();
    const log = this.#heldLog();
    const ssh = connect(this.reach, { command }, {
      isInteractive: this.#isInteractive,
      onLog: (line) => log.add(line),
    });
    this.#opening = ssh;
    try {
      const client = await openConversation(this.reach, ssh.stream, {
        handshakeTimeoutMs: this.#isInteractive ? interactiveHandshakeMs : handshakeMs,
        ...this.#options.link,
      });
      this.#wasReached = true;
      log.release();
      // A dead link must not leave an ssh behind that waits for it.
      void client.closed.then(() => ssh.close(lastWordsMs));
      return { ssh, client };
    } catch (error) {
      const end = ssh.close(lastWordsMs);
      if (!(error instanceof RpcHandshakeError)) throw error;
      if (error instanceof OtherVersionError) throw this.#unreachable(error.message, error.hint, error);
      const { message, hint } = this.#explain(await end) ?? this.#plain(error, (await end).lines.at(-1));
      throw this.#unreachable(message, hint, error);
    } finally {
      this.#opening = undefined;
    }
  }

  async #command(): Promise<string> {
    if (this.#options.deploy !== true) return roleCommand(deployedHash(process.execPath));
    try {
      this.#deployed ??= await this.#deploy();
    } catch (error) {
      if (error instanceof SshFailedError) throw this.#unreachable(error.message, error.hint, error);
      throw error;
    }
    return deployedRoleCommand(this.#deployed);
  }

  async #deploy(): Promise<string> {
    const log = this.#heldLog();
    const { sha256 } = await deploy(this.reach, {
      isInteractive: this.#isInteractive,
      onLog: (line) => log.add(line),
      onCopying: () => this.#log("dlsm is copied there"),
    });
    log.release();
    return sha256;
  }

  #heldLog(): HeldLog {
    return new HeldLog((line) => this.#log(line), this.#isInteractive);
  }

  #log(line: string): void {
    this.#options.onLog?.(`${this.reach}: ${line}`);
  }

  #explain(end: Awaited<SshConnection["ended"]>): Problem | undefined {
    return explainEnd(this.reach, end, this.#isInteractive);
  }

  #plain(error: DlsmError, said: string | undefined): { message: string; hint: string | undefined } {
    const message = `${this.reach}: ${error.message}${said === undefined ? "" : ` (${said})`}`;
    return { message, hint: error.hint };
  }

  async #lost(ssh: SshConnection, cause: DlsmError): Promise<UnreachableError> {
    const why = this.#isClosed ? undefined : explainLoss(this.reach, await ssh.close(lastWordsMs));
    return this.#unreachable(
      `the connection to ${this.reach} was lost: ${why ?? cause.message}`,
      `check ${this.reach} and the network between, then use dlsm resume`,
      cause,
    );
  }

  #unreachable(message: string, hint: string | undefined, cause?: unknown): UnreachableError {
    const details = { host: this.reach, wasReached: this.#wasReached, cause };
    return new UnreachableError(message, hint === undefined ? details : { ...details, hint });
  }
}

/** The promise's outcome, unless it takes too long or is not wanted any more; it goes on for others. */
async function within<T>(
  promise: Promise<T>,
  host: string,
  timeoutMs: number | undefined,
  signal: AbortSignal | undefined,
): Promise<T> {
  if (timeoutMs === undefined && signal === undefined) return await promise;
  const enough = new AbortController();
  const late = sleep(timeoutMs ?? 2 ** 31 - 1, undefined, { signal: enough.signal, ref: false }).then(() => {
    throw new RpcTimeoutError(`${host} took longer than ${timeoutMs} ms`);
  });
  const cancelled = new Promise<never>((_, reject) => {
    signal?.addEventListener("abort", () => reject(signal.reason), { once: true, signal: enough.signal });
  });
  late.catch(() => {});
  try {
    return await Promise.race([promise, late, cancelled]) as T;
  } finally {
    enough.abort();
  }
}

/** Lines are kept back until it is clear whether they explain a failure, unless somebody watches. */
class HeldLog {
  readonly #onLine: (line: string) => void;
  #held: string[] | undefined;

  constructor(onLine: (line: string) => void, isReleased: boolean) {
    this.#onLine = onLine;
    this.#held = isReleased ? undefined : [];
  }

  add(line: string): void {
    if (this.#held === undefined) this.#onLine(line);
    else this.#held.push(line);
  }

  release(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const line of held) this.#onLine(line);
  }
}

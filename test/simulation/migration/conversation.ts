/**
 * How roles are asked: in the same process, or over a simulated ssh by a role process of their own. A link that is
 * cut silently holds messages back, as TCP does; each end gives the other one up after a while.
 */
import { current, forever, type Host, type Process, world } from "./world.ts";

const connectMs = 40;
const delayMs = 3;
/** As src/rpc/link.ts: four beats of five seconds. */
const silenceMs = 20_000;
const handshakeMs = 30_000;

interface AskOptions {
  readonly timeoutMs?: number;
  readonly signal?: AbortSignal;
}

/** src/role/local-host.ts */
export function localHost(folders: { readonly state: string; readonly run: string }) {
  const roles = world().code.roleHandlers(folders);
  const never = new AbortController().signal;
  // Its process may end without closing it: then the kernel gives its locks back, and nothing else happens.
  const ask = async (name: string, request: unknown) => {
    world().moment(`asks itself ${name}`);
    try {
      const answer = await roles.handlers[name]!(request, { signal: never, progress: () => {} });
      world().moment(`has asked itself ${name}`);
      watch(current(), name, request, answer);
      return answer;
    } catch (error) {
      throw asSent(error);
    }
  };
  return Promise.resolve({
    reach: null,
    ask,
    facts: () => ask("host.describe", {}),
    close: () => roles.close(),
  });
}

/** src/role/remote-host.ts */
export function remoteHost(reach: string) {
  return new RemoteHost(reach);
}

class RemoteHost {
  readonly reach: string;
  #conversation: Promise<Conversation> | undefined;
  #facts: Promise<unknown> | undefined;
  #wasReached = false;
  #isClosed = false;

  constructor(reach: string) {
    this.reach = reach;
  }

  async ask(name: string, request: unknown, options: AskOptions = {}): Promise<unknown> {
    world().moment(`asks ${this.reach} ${name}`);
    const timeout = options.timeoutMs === undefined ? forever : this.#late(options.timeoutMs);
    this.#conversation ??= this.#open();
    const opening = this.#conversation;
    let conversation;
    try {
      conversation = await Promise.race([opening, timeout]);
    } catch (error) {
      if (this.#conversation === opening) this.#conversation = undefined;
      throw error;
    }
    conversation.ended.then(() => {
      if (this.#conversation === opening) this.#conversation = this.#facts = undefined;
    });
    const stop = new AbortController();
    const answer = conversation.call(name, request, stop.signal);
    try {
      const found = await Promise.race([answer, timeout]);
      world().moment(`has asked ${this.reach} ${name}`);
      return found;
    } catch (error) {
      stop.abort();
      throw error;
    }
  }

  facts(options?: AskOptions): Promise<unknown> {
    this.#facts ??= this.ask("host.describe", {}, options);
    const facts = this.#facts;
    facts.catch(() => this.#facts === facts && (this.#facts = undefined));
    return facts;
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    const conversation = await this.#conversation?.catch(() => undefined);
    conversation?.close();
  }

  async #open(): Promise<Conversation> {
    const process = current();
    await world().sleep(connectMs);
    const there = world().named(this.reach);
    const link = there === undefined ? "cut" : world().link(process.host, there);
    if (this.#isClosed) throw this.unreachable(`the connection to ${this.reach} was closed`);
    if (link === "silent") await world().sleep(handshakeMs);
    if (link !== "up") throw this.unreachable(`${this.reach} cannot be reached`);
    this.#wasReached = true;
    return new Conversation(process, there!, (why) => this.unreachable(why));
  }

  async #late(timeoutMs: number): Promise<never> {
    await world().sleep(timeoutMs);
    const { RpcTimeoutError } = world().code;
    throw new RpcTimeoutError(`${this.reach} took longer than ${timeoutMs} ms`);
  }

  unreachable(message: string): Error {
    const { UnreachableError } = world().code.errors;
    return new UnreachableError(message, {
      host: this.reach,
      wasReached: this.#wasReached,
      hint: "see the network",
    });
  }
}

interface Call {
  readonly controller: AbortController;
  settle?: (outcome: { readonly value: unknown } | { readonly error: unknown }) => void;
}

export class Conversation {
  readonly ended: Promise<void>;
  readonly #caller: Process;
  readonly #role: Process;
  readonly #unreachable: (why: string) => Error;
  readonly #calls = new Set<Call>();
  /** Messages on their way while the link is silent. */
  #held: (() => void)[] = [];
  #isCallerGone = false;
  #isRoleGone = false;
  #end!: () => void;
  #roles: ReturnType<ReturnType<typeof world>["code"]["roleHandlers"]> | undefined;
  #cut = 0;

  constructor(caller: Process, there: Host, unreachable: (why: string) => Error) {
    this.#caller = caller;
    this.#unreachable = unreachable;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    const environment = { SSH_CONNECTION: `${caller.host.address} 1 ${there.address} 22` };
    this.#role = world().spawn(there, {
      kind: "role",
      args: [`for ${caller.host.name}:${caller.pid}`],
      environment,
    }, async () => {
      const { roleHandlers, stateFolder, runFolder } = world().code;
      this.#roles = roleHandlers({ state: stateFolder(), run: runFolder() });
      await forever;
    });
    world().conversations.add(this);
    caller.ends.push(() => this.#tellRole());
    this.#role.ends.push(() => this.#tellCaller("its role ended"));
  }

  get #link() {
    return world().link(this.#caller.host, this.#role.host);
  }

  /** Each end notices the end of the other one when a message can get there. */
  #tellRole(): void {
    this.#send(() => this.#endRole());
  }

  #tellCaller(why: string): void {
    this.#send(() => this.#endCaller(why));
  }

  #send(message: () => void): void {
    world().after(delayMs, () => {
      const link = this.#link;
      if (link === "up") message();
      else if (link === "silent") this.#held.push(message);
    });
  }

  linkChanged(): void {
    const link = this.#link;
    const cut = ++this.#cut;
    if (link === "up") {
      const held = this.#held;
      this.#held = [];
      for (const message of held) message();
      return;
    }
    // Whoever cannot hear the other one gives it up: at once if it is told, else after a while.
    world().after(link === "silent" ? silenceMs : 1, () => {
      if (this.#cut !== cut) return;
      this.#held = [];
      this.#endCaller("no answer any more");
      this.#endRole();
    });
  }

  /** Nobody is told: the other end gives up after a while. */
  powerLost(host: Host): void {
    if (host !== this.#caller.host && host !== this.#role.host) return;
    world().after(silenceMs, () => {
      this.#endCaller("no answer any more");
      this.#endRole();
    });
  }

  close(): void {
    if (this.#isCallerGone) return;
    this.#endCaller("it was closed");
    this.#tellRole();
  }

  #endCaller(why: string): void {
    if (this.#isCallerGone) return;
    this.#isCallerGone = true;
    const error = this.#unreachable(`the connection to ${this.#role.host.name} was lost: ${why}`);
    for (const { settle } of this.#calls) settle?.({ error });
    this.#end();
    this.#forget();
  }

  /** As src/role/serve.ts and src/cli/commands/hidden.ts: what is under way ends, then the process. */
  #endRole(): void {
    if (this.#isRoleGone) return;
    this.#isRoleGone = true;
    this.#forget();
    if (this.#role.isDead) return;
    const role = this.#role;
    world().inside(role, () => {
      for (const { controller } of this.#calls) controller.abort(gone());
      const closing = this.#roles?.close() ?? Promise.resolve();
      closing.then(() => world().end(role, "ended"), () => world().end(role, "ended badly"));
    });
  }

  #forget(): void {
    if (this.#isCallerGone && this.#isRoleGone) world().conversations.delete(this);
  }

  call(name: string, request: unknown, signal: AbortSignal): Promise<unknown> {
    if (this.#isCallerGone) return Promise.reject(this.#unreachable("the connection was lost"));
    const call: Call = { controller: new AbortController() };
    this.#calls.add(call);
    signal.addEventListener("abort", () => {
      call.settle = undefined;
      this.#send(() => call.controller.abort(gone()));
    });
    this.#send(() => this.#serve(call, name, request));
    return new Promise((resolve, reject) => {
      const { isDead } = this.#caller;
      call.settle = (outcome) => {
        call.settle = undefined;
        this.#calls.delete(call);
        if (isDead || this.#caller.isDead) return;
        if ("error" in outcome) reject(outcome.error as Error);
        else resolve(outcome.value);
      };
    });
  }

  #serve(call: Call, name: string, request: unknown): void {
    if (this.#role.isDead || this.#isRoleGone) return;
    if (this.#roles === undefined) return void world().after(1, () => this.#serve(call, name, request));
    const answered = (outcome: { readonly value: unknown } | { readonly error: unknown }) => {
      if (this.#role.isDead) return;
      this.#send(() => call.settle?.(outcome));
      // Between what was done and its answer.
      world().inside(this.#role, () => world().moment(`answers ${name}`));
    };
    world().inside(this.#role, async () => {
      try {
        world().moment(`is asked ${name}`);
        const { signal } = call.controller;
        const value = await this.#roles!.handlers[name]!(request, { signal, progress: () => {} });
        watch(this.#role, name, request, value);
        answered({ value });
      } catch (error) {
        if (!this.#role.isDead) answered({ error: asSent(error) });
      }
    }).catch(() => {}); // It was killed.
  }
}

const gone = () => new (world().code.RpcClosedError)("the caller has gone");

/** What is no error of dlsm's family arrives as one that says so. */
function asSent(error: unknown): unknown {
  const { errors, RemoteError } = world().code;
  if (error instanceof errors.DlsmError) return error;
  if (!current().isDead) world().violate(`a bug: ${error instanceof Error ? error.stack : error}`);
  return new RemoteError(String(error));
}

/** At most one conversation has a migration's driver's place. */
function watch(process: Process, name: string, request: unknown, answer: unknown): void {
  const world_ = world();
  const { id } = request as { readonly id: string };
  const key = `${process.host.name}/${id}`;
  if (name === "driver.take" && answer === true) {
    const holder = world_.drivers.get(key);
    if (holder !== undefined && holder !== process && !holder.isDead) {
      world_.violate(`two drivers of ${id}: ${holder.pid} and ${process.pid}`);
    }
    world_.drivers.set(key, process);
  }
  if (name === "driver.leave" && world_.drivers.get(key) === process) world_.drivers.delete(key);
}

/** The host of a migration's other end, where only a record says which it is and how ssh may reach it. */
import { UnreachableError } from "../lib/errors.ts";
import type { AskOptions, Endpoint, Host } from "../role/mod.ts";

/** `of` is told to people: "the source of abcd2345". */
export interface Wanted {
  readonly end: Endpoint;
  readonly of: string;
}

/**
 * Whether the two ends of a migration are one host. Records of before there were ids of hosts: they are if
 * there is no way from one to the other.
 */
export function isSameHost(one: Endpoint, other: Endpoint): boolean {
  if (one.hostId === null || other.hostId === null) return one.reach === null && other.reach === null;
  return one.hostId === other.hostId;
}

/** The host, which is asked nothing while it is another one than is wanted: that counts as out of reach. */
export function checkedHost(host: Host, { end, of }: Wanted): Host {
  const check = async (options?: AskOptions): Promise<void> => {
    const { hostId, hostname, stateFolder } = await host.facts(options);
    if (hostId === end.hostId) return;
    const name = host.reach ?? "this machine";
    throw new UnreachableError(
      `${name} is not the host that has ${of} (${end.host}), but ${hostname} with the state folder ${stateFolder}`,
      {
        host: name,
        wasReached: false,
        hint: "name the right host, as ssh reaches it from here, with --host",
      },
    );
  };
  return {
    reach: host.reach,
    ask: async (name, request, options) => {
      await check(options);
      return await host.ask(name, request, options);
    },
    facts: async (options) => {
      await check(options);
      return await host.facts(options);
    },
    close: () => host.close(),
  };
}

/** One to which no way is known from here. */
export function unknownHost({ end, of }: Wanted): Host {
  const refuse = () =>
    Promise.reject(
      new UnreachableError(`nobody here knows how to reach the host that has ${of} (${end.host})`, {
        host: end.host,
        wasReached: false,
        hint: "name it, as ssh reaches it from here, with --host",
      }),
    );
  return { reach: end.host, ask: refuse, facts: refuse, close: () => Promise.resolve() };
}

/** The door of the roles: what a host can be asked, as handlers for a conversation (rpc). */
import * as v from "valibot";
import { PreconditionError } from "../lib/errors.ts";
import { type Handlers, localPair, type RpcClient } from "../rpc/mod.ts";
import { DestinationRole } from "./destination.ts";
import type { RoleFolders } from "./layout.ts";
import { type Replies, type Request, type RequestName, requests } from "./messages.ts";
import { SourceRole } from "./source.ts";

export type * from "./messages.ts";
export { isMigrationId } from "./messages.ts";
export { describeUsers } from "./disk-users.ts";
export { becomeDriver, readDriver } from "./driver-file.ts";
export { listIds, type RoleFolders, roleFolders } from "./layout.ts";
export { decodeTicket, encodeTicket, type Ticket } from "./ticket.ts";

/** Both roles of this host. */
export function roleHandlers(folders: RoleFolders): Handlers {
  const roles = { source: new SourceRole(folders), destination: new DestinationRole(folders) };
  const handlers: Handlers = {};
  for (const [name, schema] of Object.entries(requests)) {
    const [role, method] = name.split(".") as ["source" | "destination", string];
    const target = roles[role] as unknown as Record<string, (request: unknown) => unknown>;
    handlers[name] = async (params) => {
      const checked = v.safeParse(schema, params);
      if (!checked.success) {
        throw new PreconditionError(`${name}: a request that makes no sense (${issues(checked)})`);
      }
      return await target[method](checked.output);
    };
  }
  return handlers;
}

/** A host's roles, wherever it is. */
export class Host {
  readonly #client: RpcClient;

  constructor(client: RpcClient) {
    this.#client = client;
  }

  /** This machine, over the same messages as any other. */
  static async local(folders: RoleFolders): Promise<Host> {
    return new Host(await localPair(roleHandlers(folders)));
  }

  async ask<Name extends RequestName>(name: Name, request: Request<Name>): Promise<Replies[Name]> {
    return await this.#client.call(name, request) as Replies[Name];
  }

  close(): void {
    this.#client.close();
  }
}

function issues(checked: { readonly issues?: readonly v.BaseIssue<unknown>[] }): string {
  return checked.issues?.map((issue) => `${v.getDotPath(issue) ?? ""} ${issue.message}`.trim()).join("; ") ??
    "";
}

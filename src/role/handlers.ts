/** All roles of this host as handlers for one conversation (rpc). */
import * as v from "valibot";
import { PreconditionError, refusalOf } from "../lib/errors.ts";
import type { Handlers } from "../rpc/mod.ts";
import { servedFor } from "./alone.ts";
import { DestinationRole } from "./destination.ts";
import { DriverRole } from "./driver.ts";
import { HostRole } from "./host.ts";
import type { RoleFolders } from "./layout.ts";
import { requests } from "./messages.ts";
import { SourceRole } from "./source.ts";

export interface Roles {
  readonly handlers: Handlers;
  /** At the end of the conversation: waits for what is under way, then the roles let go. */
  close(): Promise<void>;
}

export function roleHandlers(folders: RoleFolders): Roles {
  const roles = {
    source: new SourceRole(folders),
    destination: new DestinationRole(folders),
    driver: new DriverRole(folders),
    host: new HostRole(folders),
  };
  const underWay = new Set<Promise<unknown>>();
  const handlers: Handlers = {};
  for (const [name, schema] of Object.entries(requests)) {
    const [role, method] = name.split(".") as [keyof typeof roles, string];
    const target = roles[role] as unknown as Record<string, (request: unknown) => unknown>;
    const answer = async (params: unknown) => {
      const checked = v.safeParse(schema, params);
      if (!checked.success) {
        throw new PreconditionError(`${name}: a request that makes no sense (${issues(checked)})`);
      }
      try {
        return await target[method](checked.output);
      } catch (error) {
        throw refusalOf(error) ?? error;
      }
    };
    handlers[name] = (params, { signal }) => {
      const answered = servedFor(signal, () => answer(params));
      underWay.add(answered);
      const done = () => underWay.delete(answered);
      answered.then(done, done);
      return answered;
    };
  }
  return {
    handlers,
    close: async () => {
      while (underWay.size > 0) await Promise.allSettled(underWay);
      roles.driver.close();
    },
  };
}

function issues(checked: { readonly issues?: readonly v.BaseIssue<unknown>[] }): string {
  return checked.issues?.map((issue) => `${v.getDotPath(issue) ?? ""} ${issue.message}`.trim()).join("; ") ??
    "";
}

/** This machine, asked with the same messages as any other. */
import { localPair } from "../rpc/mod.ts";
import type { AskOptions, Host } from "./asking.ts";
import { roleHandlers } from "./handlers.ts";
import type { RoleFolders } from "./layout.ts";
import type { Replies, Request, RequestName } from "./messages.ts";

export async function localHost(folders: RoleFolders): Promise<Host> {
  const roles = roleHandlers(folders);
  const client = await localPair(roles.handlers);
  const ask = async <Name extends RequestName>(
    name: Name,
    request: Request<Name>,
    options: AskOptions = {},
  ) => await client.call(name, request, options) as Replies[Name];
  return {
    reach: null,
    ask,
    facts: () => ask("host.describe", {}),
    close: async () => {
      client.close();
      await roles.close();
    },
  };
}

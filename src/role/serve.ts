/** The answering end of the roles' conversation. */
import type { Duplex } from "node:stream";
import { type LinkOptions, serve } from "../rpc/mod.ts";
import { capabilities } from "./conversation.ts";
import { roleHandlers } from "./handlers.ts";
import type { RoleFolders } from "./layout.ts";

/** Serves this host's roles over the stream; resolves when the conversation is over and nothing is under way. */
export async function serveRoles(
  folders: RoleFolders,
  stream: Duplex,
  options: LinkOptions = {},
): Promise<void> {
  const roles = roleHandlers(folders);
  await serve(stream, roles.handlers, { ...options, capabilities }).closed;
  await roles.close();
}

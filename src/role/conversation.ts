/** How the roles of another host are talked with over a stream: only if dlsm there has the same version. */
import type { Duplex } from "node:stream";
import { version } from "../lib/version.ts";
import { type Banner, capability, type LinkOptions, RpcClient, RpcHandshakeError } from "../rpc/mod.ts";

export const capabilities: readonly string[] = [`dlsm=${version}`];

/** The dlsm on the other host is of another version. */
export class OtherVersionError extends RpcHandshakeError {}

/**
 * Rejects as RpcClient.connect, and with OtherVersionError. `host` is for messages.
 */
export async function openConversation(
  host: string,
  stream: Duplex,
  options: LinkOptions = {},
): Promise<RpcClient> {
  const refuse = (banner: Banner) => otherVersion(host, capability(banner, "dlsm"));
  return await RpcClient.connect(stream, { ...options, capabilities, refuse });
}

function otherVersion(host: string, theirs: string | undefined): OtherVersionError | undefined {
  if (theirs === version) return undefined;
  return new OtherVersionError(
    `dlsm ${theirs ?? "of an unknown version"} is on ${host}, and ${version} here`,
    { hint: `install the same version on ${host}, or use --deploy` },
  );
}

/** What this host says about itself. */
import { readlinkSync } from "node:fs";
import { hostname, userInfo } from "node:os";
import { DlsmError } from "../lib/errors.ts";
import { bootId } from "../lib/process-id.ts";
import { version } from "../lib/version.ts";
import { DestinationRole } from "./destination.ts";
import type { Host } from "./asking.ts";
import type { HostFacts, HostReplies } from "./host-messages.ts";
import { readHostId } from "./host-id.ts";
import { nameHost, type RoleFolders } from "./layout.ts";
import type { Request } from "./messages.ts";
import { findRoute, probePortal } from "./network.ts";
import { openPort } from "./open-port.ts";
import { remoteHost } from "./remote-host.ts";
import { SourceRole } from "./source.ts";
import { clean, survey } from "./survey/survey.ts";

/** For a host that is only to be tried, connecting included. */
const reachTimeoutMs = 30_000;

export class HostRole {
  readonly #folders: RoleFolders;

  constructor(folders: RoleFolders) {
    this.#folders = folders;
  }

  describe(): HostFacts {
    return {
      hostname: hostname(),
      hostId: readHostId(this.#folders.state),
      version,
      uid: process.getuid?.() ?? 0,
      user: userName(),
      bootId: bootId(),
      networkId: readlinkSync("/proc/self/ns/net"),
      stateFolder: this.#folders.state,
      runFolder: this.#folders.run,
      ssh: sshAddresses(process.env.SSH_CONNECTION),
      runtime: runtime(),
    };
  }

  identify(): HostReplies["host.identify"] {
    return { hostId: nameHost(this.#folders) };
  }

  route({ to }: Request<"host.route">): Promise<HostReplies["host.route"]> {
    return findRoute(to);
  }

  probe({ address, port, timeoutMs }: Request<"host.probe">): Promise<HostReplies["host.probe"]> {
    return probePortal(address, port, timeoutMs);
  }

  async reachSsh({ destination }: Request<"host.reachSsh">): Promise<HostReplies["host.reachSsh"]> {
    let other: Host | undefined;
    try {
      other = remoteHost(destination, { isInteractive: false });
      const { hostname, hostId } = await other.facts({ timeoutMs: reachTimeoutMs });
      return { problem: null, hostname, hostId };
    } catch (error) {
      if (!(error instanceof DlsmError)) throw error;
      return { problem: error.message, hostname: null, hostId: null };
    } finally {
      await other?.close();
    }
  }

  openPort({ address, forMs }: Request<"host.openPort">): Promise<HostReplies["host.openPort"]> {
    return openPort(address, forMs);
  }

  clock(): HostReplies["host.clock"] {
    return { nowMs: Date.now() };
  }

  survey(): Promise<HostReplies["host.survey"]> {
    return survey(this.#folders, this.describe(), async () => ({
      sources: await new SourceRole(this.#folders).list({}),
      destinations: await new DestinationRole(this.#folders).list({}),
    }));
  }

  clean(): Promise<HostReplies["host.clean"]> {
    return clean(this.#folders);
  }
}

/** Of `SSH_CONNECTION`: "client-address client-port server-address server-port". */
function sshAddresses(variable: string | undefined): HostFacts["ssh"] {
  const words = variable?.split(" ") ?? [];
  return words.length === 4 ? { clientAddress: words[0], serverAddress: words[2] } : null;
}

function userName(): string {
  try {
    return userInfo().username;
  } catch {
    // A user without an entry in /etc/passwd.
    return String(process.getuid?.() ?? "");
  }
}

function runtime(): string {
  const { deno } = process.versions as { readonly deno?: string };
  return deno === undefined ? `node ${process.versions.node}` : `deno ${deno}`;
}

/** The two roles by hand, when there is no connection between their hosts: a ticket carries what is needed. */
import { PreconditionError } from "../lib/errors.ts";
import { describeUsers, encodeTicket, type Ticket } from "../role/mod.ts";
import { type Context } from "./context.ts";
import { type MigrateRequest, newId } from "./start.ts";

export interface ExportRequest {
  readonly path: string;
  readonly portal: { readonly address: string; readonly port: number };
  /** The one address that may log in. */
  readonly allow: string;
}

/** Exports a disk. The ticket is a secret. */
export async function exportByHand(
  context: Context,
  request: ExportRequest,
): Promise<{ id: string; ticket: string }> {
  const { source } = context;
  const disk = await source.ask("source.inspect", { path: request.path });
  if (disk.users.length > 0) {
    context.reporter.message(
      "info",
      `${disk.path} is in use by ${describeUsers(disk.users)}: that must stop before the hand-off`,
    );
  }
  const id = newId();
  const exported = await source.ask("source.export", { id, ...request, tunnel: null, destination: null });
  const place = { host: disk.host, path: disk.path, reach: null, hostId: null };
  return { id, ticket: encodeTicket({ id, source: place, export: exported }) };
}

/** What `attach` can be told about the volume, and where it goes. */
export interface AttachRequest extends
  Pick<
    MigrateRequest,
    "handoff" | "activation" | "blockBytes" | "bytesPerSecond" | "sourceTimeoutMs" | "holdCutover" | "force"
  > {
  readonly destination: string;
}

/** Attaches a destination to an export made elsewhere. */
export async function attachByTicket(
  context: Context,
  ticket: Ticket,
  request: AttachRequest,
): Promise<void> {
  const { destination } = context;
  const { id, source, export: { address, port, tunnel } } = ticket;
  if ((await destination.ask("destination.list", { id })).length > 0) {
    throw new PreconditionError(`the ticket is in use: ${id} is attached already`, {
      hint: `see dlsm status ${id}`,
    });
  }
  await destination.ask("destination.plan", {
    id,
    diskCount: 1,
    network: { portal: { address, port }, allow: address, tunnel },
    path: request.destination,
    force: request.force,
    sizeBytes: ticket.export.sizeBytes,
    blockBytes: request.blockBytes,
    activation: request.activation,
    bytesPerSecond: request.bytesPerSecond,
    sourceTimeoutMs: request.sourceTimeoutMs,
    source,
    destinationReach: null,
    options: {
      handoff: request.handoff ?? "manual",
      verify: false,
      holdCutover: request.holdCutover,
      byTicket: true,
      keepSource: false,
    },
    failback: null,
  });
  try {
    await destination.ask("destination.attach", { id, export: ticket.export });
  } catch (error) {
    await destination.ask("destination.abort", { id, force: false });
    throw error;
  }
}

/**
 * A simulated target: the healthy one of the scripted tests, with an order, a delay and a fault for every
 * answer drawn from the seed. It also holds the initiator to the rules that a target can see.
 */
import { crc32c } from "../../../src/iscsi-initiator/crc32c.ts";
import { answerInOrder } from "../../iscsi-initiator/scripted-target.ts";
import type { TargetDisk } from "../../iscsi-initiator/target-disk.ts";
import {
  type Field,
  isRead,
  lbaOf,
  Peer,
  type Request,
  RequestReader,
} from "../../iscsi-initiator/target-peer.ts";
import { answerRead, type Step, type Verdict } from "./faults.ts";
import type { SimSocket } from "./network.ts";
import type { World } from "./world.ts";

export interface TargetOptions {
  readonly maxTasks: number;
  /** How likely a read is answered wrongly, and in which of the ways to do so. */
  readonly faultRate: number;
  readonly ways: readonly string[];
  /** The longest that an answer usually takes to begin. */
  readonly latencyMs: number;
}

/** What the target did with the commands that began at one block. */
interface Record {
  /** It ended one of them for good, badly. */
  failed: boolean;
  /** It let so many of them be asked again. */
  again: number;
}

/** Keeps the largest MaxCmdSN that it ever told. */
class SimPeer extends Peer<SimSocket> {
  /** As a difference to the first CmdSN, so that it does not wrap. */
  toldMax = -1;
  firstCmdSN = 0;

  override pdu(opcode: number, flags: number, fields: readonly Field[], data?: Uint8Array): Buffer {
    this.toldMax = Math.max(this.toldMax, (this.expCmdSN - this.firstCmdSN | 0) + this.windowSize - 1);
    return super.pdu(opcode, flags, fields, data);
  }
}

export class SimTarget {
  readonly #world: World;
  readonly #options: TargetOptions;
  /** The disk that connections from now on show. */
  disk: TargetDisk;
  /** The one that the session began with. */
  readonly #firstDisk: TargetDisk;
  readonly #records = new Map<number, Record>();
  connections = 0;
  mostInFlight = 0;

  constructor(world: World, disk: TargetDisk, options: TargetOptions) {
    this.#world = world;
    this.#options = options;
    this.disk = disk;
    this.#firstDisk = disk;
  }

  accept(socket: SimSocket): void {
    new TargetConnection(this.#world, this, socket, ++this.connections, this.#options);
  }

  /** Whether a read of these blocks may have failed: for good, or asked for too often. */
  mayHaveFailed(lba: number, blocks: number): boolean {
    for (const [at, { failed, again }] of this.#records) {
      if (at >= lba && at < lba + blocks && (failed || again >= 5)) return true;
    }
    return false;
  }

  record(lba: number, verdict: Verdict): void {
    const record = this.#records.get(lba) ?? { failed: false, again: 0 };
    if (verdict === "failed") record.failed = true;
    if (verdict === "again") record.again++;
    this.#records.set(lba, record);
  }

  isFirst(disk: TargetDisk): boolean {
    return disk === this.#firstDisk;
  }
}

class TargetConnection {
  readonly #world: World;
  readonly #target: SimTarget;
  readonly #options: TargetOptions;
  readonly #peer: SimPeer;
  readonly #reader = new RequestReader();
  /** The tags of commands without a status. */
  readonly #open = new Set<number>();
  #nextCmdSN: number | undefined;

  constructor(world: World, target: SimTarget, socket: SimSocket, index: number, options: TargetOptions) {
    this.#world = world;
    this.#target = target;
    this.#options = options;
    this.#peer = new SimPeer(socket, index, target.disk);
    this.#peer.statSN = world.random.chance(0.2) ? 0xfffffff0 : 1000;
    this.#peer.windowSize = 1 + world.random.below(64);
    socket.onData = (piece) => {
      for (const request of this.#reader.push(piece, this.#peer)) {
        if (!socket.destroyed) this.#onRequest(request);
      }
    };
    if (world.strikes("connection that will be cut", 0.3)) {
      socket.cutAfterBytes = Math.ceil(world.skewed(400_000));
    }
    this.#misbehaveAtTimes();
  }

  /** Now and then the connection stalls, the window changes, or the target pings. */
  #misbehaveAtTimes(): void {
    const { random, clock } = this.#world;
    clock.after(random.next() * 800, () => {
      const peer = this.#peer;
      if (peer.socket.destroyed) return;
      if (this.#world.strikes("stall for ever", 0.03)) peer.socket.stall(Infinity);
      if (this.#world.strikes("stall for a while", 0.1)) {
        peer.socket.stall(this.#world.nowMs + random.next() * 12_000);
      }
      if (this.#world.strikes("window shut", 0.05)) peer.windowSize = 0;
      else peer.windowSize = 1 + random.below(64);
      if (peer.isLoggedIn && random.chance(0.3)) {
        this.#world.reach("ping of the target");
        this.#send(peer.ping(random.chance(0.5) ? 0xffffffff : 4711));
      }
      this.#misbehaveAtTimes();
    });
  }

  #onRequest(request: Request): void {
    const peer = this.#peer;
    this.#checkOrder(request);
    if (request.opcode === 0x03) return this.#onLogin(request);
    if (request.opcode === 0x01) this.#checkCommand(request);
    this.#world.clock.after(this.#delayMs(), () => {
      if (peer.socket.destroyed) return;
      if (!isRead(request)) {
        if (this.#world.strikes("a request without an answer", 0.004)) return;
        if (request.opcode === 0x01) this.#open.delete(request.tag);
        return answerInOrder(request, peer);
      }
      const isOdd = this.#world.isChaotic && this.#world.random.chance(this.#options.faultRate);
      const { ways } = this.#options;
      const way = isOdd ? ways[this.#world.random.below(ways.length)] : undefined;
      if (way !== undefined) this.#world.reach(way);
      if (this.#world.strikes("a read without an answer", 0.002)) return;
      const { steps, verdict } = answerRead({ peer, request, random: this.#world.random }, way);
      this.#sendSteps(request, steps, verdict);
    });
  }

  #delayMs(): number {
    if (this.#world.strikes("slow answer", 0.01)) return 40_000 * this.#world.random.next();
    return this.#options.latencyMs * this.#world.random.next();
  }

  #onLogin(request: Request): void {
    const peer = this.#peer;
    if (this.#world.strikes("login without an end", 0.02)) return;
    if (this.#world.strikes("login refused", 0.04)) {
      return this.#send(peer.loginRefusal(request, 2 + this.#world.random.below(2), 1));
    }
    if (this.#world.strikes("login in nonsense", 0.02)) return this.#send(Buffer.alloc(100, 0xff));
    if (this.#world.strikes("redirect", 0.02)) {
      return this.#send(peer.loginRefusal(request, 1, 2, "TargetAddress=elsewhere:3260,1\0"));
    }
    answerInOrder(request, peer);
  }

  /** The PDUs of one answer, with others' between them. */
  #sendSteps(request: Request, steps: Step[], verdict: Verdict): void {
    const peer = this.#peer;
    // Where the connection is lost, the status may come before the last step.
    if (verdict === "lost") this.#open.delete(request.tag);
    const next = (at: number): void => {
      if (peer.socket.destroyed) return;
      if (at === steps.length - 1) {
        this.#open.delete(request.tag);
        this.#target.record(lbaOf(request), verdict);
      }
      if (at < steps.length) this.#send(steps[at]());
      if (at + 1 >= steps.length) return;
      if (this.#world.random.chance(0.5)) next(at + 1);
      else this.#world.clock.after(this.#world.skewed(20), () => next(at + 1));
    };
    next(0);
  }

  /** A bit is flipped on the way only where a digest covers it: TCP's own checksum is trusted otherwise. */
  #send(pdu: Uint8Array): void {
    const { header, data } = this.#peer.digests;
    const fromByte = header ? 0 : 48;
    const toByte = data ? pdu.length : header ? 52 : 0;
    if (toByte > fromByte && this.#world.strikes("flipped bit", 0.01)) {
      const at = fromByte + this.#world.random.below(toByte - fromByte);
      pdu[at] ^= 1 << this.#world.random.below(8);
    }
    this.#peer.send(pdu);
  }

  #checkOrder(request: Request): void {
    const peer = this.#peer;
    const isImmediate = (request.header.getUint8(0) & 0x40) !== 0;
    const cmdSN = request.header.getUint32(24);
    if (this.#nextCmdSN === undefined) {
      this.#nextCmdSN = cmdSN;
      peer.firstCmdSN = cmdSN;
    }
    if (cmdSN !== this.#nextCmdSN) this.#world.broken(`CmdSN ${cmdSN} instead of ${this.#nextCmdSN}`);
    if (!isImmediate) this.#nextCmdSN = (cmdSN + 1) >>> 0;
    peer.expCmdSN = this.#nextCmdSN;
  }

  #checkCommand(request: Request): void {
    const peer = this.#peer;
    const ahead = request.header.getUint32(24) - peer.firstCmdSN | 0;
    if (ahead > peer.toldMax) this.#world.broken("a command beyond the window");
    if (this.#open.has(request.tag)) this.#world.broken("a tag that is in use");
    this.#open.add(request.tag);
    this.#target.mostInFlight = Math.max(this.#target.mostInFlight, this.#open.size);
    if (this.#open.size > this.#options.maxTasks) this.#world.broken(`${this.#open.size} commands at once`);
    if (!isRead(request)) return;
    const blocks = request.expectedBytes / 512;
    const limit = peer.disk.maxTransferBlocks || 2048;
    const isWithin = blocks > 0 && blocks <= limit && lbaOf(request) + blocks <= peer.disk.blocks;
    if (!isWithin || request.header.getUint32(42) !== blocks) this.#world.broken("a read that cannot be");
    if (!this.#target.isFirst(peer.disk)) this.#world.broken("a read from another disk");
  }
}

/** For the trace: what a buffer holds, in short. */
export function fingerprint(bytes: Uint8Array): string {
  return crc32c(bytes).toString(16);
}

/** The kernel's table of TCP sockets, /proc/net/tcp and /proc/net/tcp6 (proc_pid_net(5)). Pure. */

export interface TcpSocket {
  /** A literal IPv4 or IPv6 address. */
  readonly address: string;
  readonly port: number;
  readonly state: "listening" | "established" | "other";
  readonly inode: string;
}

const states: Readonly<Record<string, TcpSocket["state"]>> = { "0A": "listening", "01": "established" };

/** The sockets of one table; lines that make no sense are left out. */
export function parseTcpTable(text: string): TcpSocket[] {
  return text.split("\n").slice(1).flatMap((line) => {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/);
    const [hex, port] = local?.split(":") ?? [];
    const address = hex === undefined ? undefined : addressOf(hex);
    if (address === undefined || !/^[0-9A-F]{4}$/.test(port ?? "") || !/^\d+$/.test(inode ?? "")) return [];
    return [{ address, port: parseInt(port!, 16), state: states[state!] ?? "other", inode: inode! }];
  });
}

/** Each 32-bit word stands in the byte order of a little-endian machine. */
function addressOf(hex: string): string | undefined {
  const words = hex.match(/^([0-9A-F]{8}){1,4}$/) === null ? null : hex.match(/.{8}/g);
  if (words === null) return undefined;
  const bytes = words.flatMap((word) => word.match(/../g)!.reverse().map((byte) => parseInt(byte, 16)));
  if (bytes.length === 4) return bytes.join(".");
  if (bytes.length !== 16) return undefined;
  const groups = Array.from({ length: 8 }, (_, at) => (bytes[2 * at] << 8 | bytes[2 * at + 1]).toString(16));
  return new URL(`http://[${groups.join(":")}]/`).hostname.slice(1, -1);
}

/** Whether a listener there takes what comes to any address of the host. */
export const isEverywhere = ({ address }: TcpSocket): boolean => address === "0.0.0.0" || address === "::";

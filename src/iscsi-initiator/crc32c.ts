/**
 * CRC32C (Castagnoli), the digest of RFC 7143 §13.1, slicing-by-8 in plain JavaScript. Pure.
 *
 * Eight tables let one step take eight bytes: table n holds the effect of a byte that is followed by n zero
 * bytes.
 */

/** The polynomial 0x1EDC6F41, bit-reflected. */
const polynomial = 0x82f63b78;

const tables = buildTables();

function buildTables(): Int32Array[] {
  const built = Array.from({ length: 8 }, () => new Int32Array(256));
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
    built[0][byte] = crc;
  }
  for (let n = 1; n < 8; n++) {
    for (let byte = 0; byte < 256; byte++) {
      const previous = built[n - 1][byte];
      built[n][byte] = (previous >>> 8) ^ built[0][previous & 0xff];
    }
  }
  return built;
}

/**
 * The CRC of `bytes`, as an unsigned 32-bit number; on the wire it goes least significant byte first. To go
 * on where an earlier call ended, pass its result as `previous`.
 */
export function crc32c(bytes: Uint8Array, previous = 0): number {
  const [t0, t1, t2, t3, t4, t5, t6, t7] = tables;
  const length = bytes.length;
  let crc = ~previous;
  let at = 0;
  for (; at + 8 <= length; at += 8) {
    crc ^= bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 | bytes[at + 3] << 24;
    crc = t7[crc & 0xff] ^ t6[crc >>> 8 & 0xff] ^ t5[crc >>> 16 & 0xff] ^ t4[crc >>> 24] ^
      t3[bytes[at + 4]] ^ t2[bytes[at + 5]] ^ t1[bytes[at + 6]] ^ t0[bytes[at + 7]];
  }
  for (; at < length; at++) crc = (crc >>> 8) ^ t0[(crc ^ bytes[at]) & 0xff];
  return ~crc >>> 0;
}

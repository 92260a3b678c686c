/** The one table from error codes to the error values of NBD (NBD proto.md, "Error values"). */

export const nbdError = {
  EPERM: 1,
  EIO: 5,
  ENOMEM: 12,
  EINVAL: 22,
  ENOSPC: 28,
  EOVERFLOW: 75,
  ENOTSUP: 95,
} as const;

/**
 * Codes of Node's errors and what goes on the wire. Anything else is EIO. ESHUTDOWN is left out on purpose:
 * QEMU hands NBD_ESHUTDOWN to its guest as an I/O error even when it would have reconnected.
 */
const wireErrors: Readonly<Record<string, number>> = {
  EPERM: nbdError.EPERM,
  EACCES: nbdError.EPERM,
  EROFS: nbdError.EPERM,
  EIO: nbdError.EIO,
  ENOMEM: nbdError.ENOMEM,
  EINVAL: nbdError.EINVAL,
  ENOSPC: nbdError.ENOSPC,
  EDQUOT: nbdError.ENOSPC,
  EFBIG: nbdError.ENOSPC,
  EOVERFLOW: nbdError.EOVERFLOW,
  ENOTSUP: nbdError.ENOTSUP,
  EOPNOTSUPP: nbdError.ENOTSUP,
};

/**
 * NBD's error value for what a device rejected with. ENOTSUP is an answer to a fast zero request only
 * (`isFastZero`); from anything else it is EINVAL.
 */
export function wireErrorOf(error: unknown, isFastZero: boolean): number {
  const code = error instanceof Error && "code" in error ? error.code : undefined;
  const wire = typeof code === "string" && Object.hasOwn(wireErrors, code) ? wireErrors[code] : nbdError.EIO;
  return wire === nbdError.ENOTSUP && !isFastZero ? nbdError.EINVAL : wire;
}

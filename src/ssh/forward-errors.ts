/** Why `ssh -W` gave no connection, in words. Pure. */

/** As much of its stderr is kept: banners may come before what counts. */
export const maxStderrCharacters = 8192;

/** What of ssh's lines decides, the first that fits; `$1` is what its pattern caught. */
const reasons: readonly (readonly [pattern: RegExp, words: string])[] = [
  [/open failed: administratively prohibited/, "its sshd does not allow forwarding (AllowTcpForwarding, PermitOpen)"],
  [/open failed: connect failed: Connection refused/, "nothing listens there (Connection refused)"],
  [/open failed: connect failed: ([^\n]+)/, "it cannot reach that address ($1)"],
  [/open failed: ([^\n]+)/, "its sshd refused the connection ($1)"],
];

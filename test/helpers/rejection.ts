/** The error that a promise rejects with, which must be of the class; fails the test otherwise. */
export async function rejection<E extends Error>(
  promise: Promise<unknown>,
  expected: abstract new (...parameters: never[]) => E,
): Promise<E> {
  let value: unknown;
  try {
    value = await promise;
  } catch (error) {
    if (error instanceof expected) return error;
    throw error;
  }
  throw new Error(`resolved with ${JSON.stringify(value)} where ${expected.name} is expected`);
}

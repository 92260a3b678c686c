/** Bugs to plant into a copy of the engine, one at a time, each of which the simulation has to find. */

import type { Edit } from "./plant.ts";

const acknowledgedMap = `      this.#writeHeader("durable");
      await durable.sync();
      this.#sequences.durable++;
      for`;

export const mutants: Readonly<Record<string, readonly Edit[]>> = {
  "residency is made durable before its data": [{
    file: "residency-store.ts",
    from: `      await syncData().catch((error) => {
        this.#noteFailedSync();
        throw error;
      });
      if (pages.length === 0) return;`,
    to: "      if (pages.length === 0) return await syncData();",
  }, {
    file: "residency-store.ts",
    from: "      for (const { page, bits } of copies) this.#durableIndex[page] = bits;",
    to: `      for (const { page, bits } of copies) this.#durableIndex[page] = bits;
      await syncData();`,
  }],
  "a flush is acknowledged before the map is durable": [{
    file: "residency-store.ts",
    from: acknowledgedMap,
    to: acknowledgedMap.replace("await durable.sync();", "void durable.sync().catch(() => {});"),
  }],
  "data is kept before GOOD status": [{
    file: "fetch-queue.ts",
    from: `await source.read(fetch.purpose === "sync" ? "sync" : "demand", offset, buffer);`,
    to: `const command = source.read(fetch.purpose === "sync" ? "sync" : "demand", offset, buffer);
      command.catch(() => {});
      await Promise.race([command, disk.read(0, Buffer.alloc(0)).catch(() => {})]);`,
  }, {
    file: "fetch-queue.ts",
    from: "    const { source } = this.#deps;",
    to: "    const { source, disk } = this.#deps;",
  }],
  "what a command that failed had brought is kept": [{
    file: "fetch-queue.ts",
    from: `      for (const waiter of fetch.waiters) waiter.reject(error as Error);
      this.#leaveLane(fetch);
      this.#settle(fetch, error as Error, undefined);
      return;`,
    to: "      if (error === undefined) return;",
  }],
  "a fetch overwrites a newer write": [{
    file: "fetch-queue.ts",
    from: `      if (run.state === residency.absent) parts.push(...unclaimed(run, claims));
      else here.push(run);`,
    to: "      parts.push(run);",
  }],
  "a fetch overwrites a write under way": [{
    file: "fetch-queue.ts",
    from: "parts.push(...unclaimed(run, claims));",
    to: "parts.push(run);",
  }],
  "what is read ahead is kept before activation": [{
    file: "volume.ts",
    from: `    if (!this.#store.activated) return;
    await this.#reading.makeResident`,
    to: "    await this.#reading.makeResident",
  }],
  "a write of a part of a block loses its neighbours": [{
    file: "writing.ts",
    from: "if (edges.length > 0) {",
    to: "if (edges.length < 0) {",
  }],
  "a trim is forgotten after a crash": [{
    file: "residency-store.ts",
    from: `      this.map.mark(first, count, plane);
    } catch`,
    to: `      try {
        this.map.mark(first, count, plane);
      } finally {
        this.isForgetful = false;
      }
    } catch`,
  }, {
    file: "residency-store.ts",
    from: `  /** Whether the hand-off has happened, durably. */`,
    to: "  isForgetful = false;",
  }, {
    file: "residency-store.ts",
    from: "    this.#announceChange(page);\n",
    to: "    if (this.isForgetful) return;\n    this.#announceChange(page);\n",
  }, {
    file: "residency-store.ts",
    from: "for (let page = fromPage; page < toPage; page++) this.#markDirty(page);\n",
    to: "if (this.isForgetful) return;\n",
  }, {
    file: "volume.ts",
    from: "() => this.#disk.zero(from, to - from, false), client)",
    to: `async () => {
      await this.#disk.zero(from, to - from, false);
      this.#store.isForgetful = true;
    }, client)`,
  }],
  "the sync skips the last, partial block": [{
    file: "sync.ts",
    from: "const first = map.find(residency.absent, this.#cursor);",
    to: `const { sizeBytes, blockBytes } = this.#deps.geometry;
      const first = map.find(residency.absent, this.#cursor, Math.floor(sizeBytes / blockBytes));`,
  }, {
    file: "sync.ts",
    from: "if (map.absentCount === 0) return this.#finish();",
    to: `const { sizeBytes, blockBytes } = this.#deps.geometry;
      if (map.absentCount <= (sizeBytes % blockBytes === 0 ? 0 : 1)) return this.#finish();`,
  }],
  "a hole is trusted on a destination that is not zero": [{
    file: "fetch-queue.ts",
    from: "if (store.localZero) {",
    to: "if (length > 0) {",
  }],
  "two joined demands are answered with each other's offset": [{
    file: "fetch-queue.ts",
    from: "for (const waiter of fetch.waiters) waiter.resolve(this.#slice(fetch, waiter));",
    to: `fetch.waiters.forEach((waiter, at) => {
      const other = fetch.waiters[(at + 1) % fetch.waiters.length];
      waiter.resolve(this.#slice(fetch, other.count === waiter.count ? other : waiter));
    });`,
  }],
  "a write is acknowledged before it is marked where it outlives the process": [{
    file: "residency-store.ts",
    from:
      "    this.#files.live.writeNow(pageOffset(this.#geometry, page) + (whole ? 0 : fromWord * 4), bytesOf(part));",
    to: "    if (whole) this.#files.live.writeNow(pageOffset(this.#geometry, page), bytesOf(part));",
  }],
  "a write is marked before its data is there": [{
    file: "writing.ts",
    from: "      this.#markResident(range);\n",
    to: "      this.#deps.store.mark(range.first, range.count, planes.written);\n",
  }],
  "the hand-off is believed before it is durable": [{
    file: "residency-store.ts",
    from: "    this.#header.activated = true;\n",
    to: "    this.#header.activated = true;\n    this.#isActivated = true;\n",
  }],
  "a flush shares the checkpoint that is under way": [{
    file: "checkpoints.ts",
    from: "if (this.#running === undefined) return this.#start();",
    to: `if (this.#running !== undefined) return this.#running;
    if (this.#running === undefined) return this.#start();`,
  }],
  "a new engine's first flush does nothing": [{
    file: "checkpoints.ts",
    from: "  #isDirty = true;\n",
    to: "  #isDirty = false;\n",
  }],
  "a page of the map is changed before it is called dirty": [{
    file: "residency-store.ts",
    from: "    this.#announceChange(page);\n",
    to: "",
  }],
  "a marked page is forgotten when a checkpoint fails": [{
    file: "residency-store.ts",
    from: "      for (const page of pages) this.#markDirty(page);\n",
    to: "",
  }],
  "a failed sync of the disk is forgotten by the next engine": [{
    file: "residency-store.ts",
    from: `    this.#tryToWriteHeader("live");
  }

  #tryToWriteHeader`,
    to: `  }

  #tryToWriteHeader`,
  }],
  "a live map of before a power failure is believed": [{
    file: "map-choice.ts",
    from: "live.header.bootId === bootId && ",
    to: "",
  }],
  "a demand in the queue fetches what was written meanwhile": [{
    file: "fetch-queue.ts",
    from: "if (this.#isUntouched(next)) return",
    to: "if (next !== undefined) return",
  }],
  "synced is told before it is durable": [{
    file: "volume.ts",
    from: "      await this.#checkpoints.flush();\n",
    to: "",
  }],
  "a buffer is used again while a reader has it": [{
    file: "fetch-queue.ts",
    from: "if (!fetch.isShared) this.#pool.give(buffer);",
    to: "this.#pool.give(buffer);",
  }],
  "only the first of the map's pages that changed is made durable": [{
    file: "residency-store.ts",
    from: "for (const { page, words } of copies) {",
    to: "for (const { page, words } of copies.slice(0, 1)) {",
  }],
  "the index tells of every page what it tells of the first that changed": [{
    file: "residency-store.ts",
    from: "const bytes = Uint8Array.from(copies.slice(from, to), (copy) => copy.bits);",
    to: "const bytes = Uint8Array.from(copies.slice(from, to), () => copies[from].bits);",
  }],
  "what changes in a page is written into the page before": [{
    file: "residency-store.ts",
    from: "this.#files.live.writeNow(pageOffset(this.#geometry, page) +",
    to: "this.#files.live.writeNow(pageOffset(this.#geometry, Math.max(0, page - 1)) +",
  }],
};

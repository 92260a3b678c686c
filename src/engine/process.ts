/**
 * The process of one engine: reads its configuration, serves until it is told to stop, answers on its control
 * socket. It outlives the command that started it; its output is the engine's log.
 */
import * as v from "valibot";
import { messageOf, PreconditionError } from "../lib/errors.ts";
import { type Handlers, listenUnix } from "../rpc/mod.ts";
import { engineConfigJournal, engineFiles, sourceExportSchema } from "./config.ts";
import { Engine, type EngineFolders, type EngineStart } from "./engine.ts";
import type { EngineStatus } from "./status.ts";

/** Runs until the engine is stopped; rejects if it cannot start. */
export async function runEngine(folders: EngineFolders, how: EngineStart): Promise<void> {
  const log = (text: string) => console.error(`${new Date().toISOString()} ${text}`);
  const config = engineConfigJournal(folders.state).read();
  if (config === undefined) throw new PreconditionError(`${folders.state} has no ${engineFiles.config}`);
  const engine = await Engine.start(config, folders, how, log);
  const stopped = Promise.withResolvers<void>();
  const stop = async () => {
    try {
      await engine.stop();
      stopped.resolve();
    } catch (error) {
      stopped.reject(error);
      throw error;
    }
  };
  const control = await listenUnix(`${folders.run}/${engineFiles.controlSocket}`, handlers(engine, stop), {
    // All that can be asked is short, so nobody can make the engine hold much.
    maxFrameBytes: 64 * 1024,
    maxCalls: 8,
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    process.on(signal, () => {
      log(`${signal}: stopping`);
      stop().catch((error) => log(messageOf(error)));
    });
  }
  // The command that started this process, or its terminal, may go away at any time.
  process.on("SIGHUP", () => {});
  log(`serving ${config.path} (${config.volumeId})`);
  try {
    await stopped.promise;
  } finally {
    await control.close();
  }
}

const limitSchema = v.object({ bytesPerSecond: v.nullable(v.pipe(v.number(), v.minValue(1))) });
const hashSchema = v.object({ from: v.pipe(v.number(), v.safeInteger(), v.minValue(0)) });

function handlers(engine: Engine, stop: () => Promise<void>): Handlers {
  const status = (): Promise<EngineStatus> => Promise.resolve(engine.status());
  return {
    status,
    async activate() {
      await engine.activate();
      return status();
    },
    pause() {
      engine.pause();
      return status();
    },
    resume() {
      engine.resume();
      return status();
    },
    limit(params) {
      engine.limit(v.parse(limitSchema, params).bytesPerSecond);
      return status();
    },
    async replaceSource(params) {
      await engine.replaceSource(v.parse(sourceExportSchema, params));
      return status();
    },
    async hashFetched(params) {
      const { pieces, next = null } = await engine.hashFetched(v.parse(hashSchema, params).from);
      return { pieces, next };
    },
    async detachSource() {
      await engine.detachSource();
      return status();
    },
    async disconnectClients() {
      engine.disconnectClients();
      return await status();
    },
    async stop() {
      await stop();
      return {};
    },
    /** Answers at once: the end of the process says that it has stopped. */
    stopUnlessActivated() {
      const isStopping = engine.refuseActivation();
      if (isStopping) void stop().catch(() => {}); // That it cannot ends the process, too.
      return Promise.resolve({ isStopping });
    },
  };
}

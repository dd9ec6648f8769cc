/** Between a supervisor and its process: the messages, and the process's end of the channel. */
import type { Candidacy } from '../../ha/services.js';
import type { Env } from '../../lib/base/env.js';
import type { TaskManagerId } from '../../lib/base/ids.js';

/** From the process to its supervisor. The other direction is signals. */
export type SupervisedMessage =
  | { readonly type: 'heartbeat' }
  /** What to depose when the process dies; null: nothing any more. */
  | { readonly type: 'candidacy'; readonly candidacy: Candidacy | null }
  | { readonly type: 'taskManager'; readonly taskManagerId: TaskManagerId };

/** Tells a process that its channel is a supervisor's. */
export const supervisedVariable = 'MILLRACE_INTERNAL_SUPERVISED';

export interface SupervisorLink {
  tell(message: SupervisedMessage): void;
  /**
   * From now on heartbeats, from the event loop that does the work: one that is blocked is silent. Not before the
   * process is ready: on a busy machine loading programs blocks for longer than a hang is tolerated.
   */
  startHeartbeats(): void;
}

/** A supervisor that is gone changes nothing for the process. Without one every message is dropped. */
export function connectSupervisor(env: Env, intervalMs: number): SupervisorLink {
  if (process.env[supervisedVariable] === undefined || process.send === undefined) {
    return { tell: () => undefined, startHeartbeats: () => undefined };
  }
  const tell = (message: SupervisedMessage): void => {
    if (!process.connected) return;
    // A supervisor that just died: 'disconnect' says so.
    process.send?.(message, undefined, undefined, () => undefined);
  };
  let heartbeats: NodeJS.Timeout | undefined;
  process.on('disconnect', () => {
    clearInterval(heartbeats);
    env.log.warn({ event: 'supervisor.gone' }, 'the supervisor is gone; going on without one');
  });
  // Neither the channel nor the heartbeats keep a process from ending.
  process.channel?.unref();
  return {
    tell,
    startHeartbeats: () => {
      tell({ type: 'heartbeat' });
      heartbeats ??= setInterval(() => {
        tell({ type: 'heartbeat' });
      }, intervalMs).unref();
    },
  };
}

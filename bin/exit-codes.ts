/** The exit codes of every program of ours, and which one an error becomes. */
import type { ErrorCode } from '../lib/base/error-codes.js';
import { MillraceError } from '../lib/base/errors.js';

export const exitCodes = {
  done: { code: 0, meaning: 'done' },
  failed: { code: 1, meaning: 'the job or the request failed' },
  usage: { code: 2, meaning: 'wrong usage or configuration' },
  unavailable: {
    code: 3,
    meaning: 'something else is unavailable: etcd, a leader, a port; try again',
  },
  /** Of a JobManager; whoever runs it starts it again with clean memory. */
  leadershipLost: { code: 75, meaning: 'the leadership was lost; start the process again' },
  interrupted: { code: 130, meaning: 'interrupted' },
} as const;

const unavailable: readonly ErrorCode[] = [
  'ETCD_UNAVAILABLE',
  'ETCD_MISSING',
  'NO_LEADER',
  'PORT_IN_USE',
  'RPC_DISCONNECTED',
  'TIMEOUT',
];

export function exitCodeOf(error: unknown): number {
  if (!(error instanceof MillraceError)) return exitCodes.failed.code;
  if (error.code === 'CONFIG' || error.code === 'CLUSTER_MISMATCH') return exitCodes.usage.code;
  if (error.code === 'LEADERSHIP_LOST') return exitCodes.leadershipLost.code;
  if (unavailable.includes(error.code)) return exitCodes.unavailable.code;
  return exitCodes.failed.code;
}

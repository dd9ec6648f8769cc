/** What an administrator asks of each etcd member: does it answer, with what, how fast, and what does it complain about. */
import type { IStatusResponse } from 'etcd3';
import type { StoreMember } from '../services.js';
import { toSafeInteger } from './etcd-codec.js';

/** `errors` of a status are Go's text of an alarm: `memberID:123 alarm:NOSPACE `. */
const alarmPattern = /alarm:([A-Z]+)/;

export function describeMember(
  endpoint: string,
  status: IStatusResponse,
  latencyMs: number,
): StoreMember {
  const memberId = status.header.member_id;
  const alarms = [
    ...new Set((status.errors ?? []).flatMap((text) => alarmPattern.exec(text)?.[1] ?? [])),
  ];
  const hasLeader = status.leader !== '0';
  const error = !hasLeader
    ? 'it sees no leader: most members must run and reach each other'
    : alarms.length > 0
      ? `it raises the alarm ${alarms.join(', ')}`
      : undefined;
  return {
    endpoint,
    isHealthy: error === undefined,
    version: status.version,
    memberId,
    isLeader: hasLeader && status.leader === memberId,
    dbSizeBytes: toSafeInteger(status.dbSize),
    dbSizeInUseBytes: toSafeInteger(status.dbSizeInUse),
    latencyMs,
    alarms,
    ...(error !== undefined && { error }),
  };
}

export function silentMember(endpoint: string, cause: unknown, latencyMs: number): StoreMember {
  return {
    endpoint,
    isHealthy: false,
    version: '',
    memberId: '',
    isLeader: false,
    dbSizeBytes: 0,
    dbSizeInUseBytes: 0,
    latencyMs,
    alarms: [],
    error: describeSilence(cause),
  };
}

/** grpc-js names a connection that was given up in words that help nobody. */
function describeSilence(cause: unknown): string {
  const text = cause instanceof Error ? cause.message : String(cause);
  if (/DEADLINE_EXCEEDED|Channel closed/.test(text)) return 'it does not answer in time';
  return /ECONNREFUSED/.test(text) ? 'nobody listens there (ECONNREFUSED)' : text;
}

/** What a local cluster is made of, how a new one is planned, and what its folder holds of that. */
import { linkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { MillraceError } from '../../lib/base/errors.js';
import { readPidFile } from '../supervisor/pid-file.js';
import { etcdClientUrl, findFreePorts, type EtcdMemberSpec } from './etcd-member.js';
import { isAlive, startTimeOf, type ManagedProcess } from './managed-process.js';

export interface LocalClusterOptions {
  /** Folder of local clusters. */
  readonly folder: string;
  /** Becomes the cluster id in etcd; unique, so that a new cluster never meets old data. */
  readonly clusterId: string;
  readonly jobManagers: number;
  readonly taskManagers: number;
  readonly slotsPerTaskManager: number;
  /** Own members to start, or the client URLs of an etcd that runs already. */
  readonly etcd:
    | {
        readonly members: number;
        /** Ports by member; default: free ones. Given by drills, whose proxies must know them beforehand. */
        readonly ports?: readonly EtcdPorts[];
      }
    | { readonly endpoints: readonly string[] };
  /** `key: value` settings for every process; they win over the cluster's own. */
  readonly settings: Readonly<Record<string, string>>;
  /** Settings of single processes by name (`jobmanager-2`); they win over all. */
  readonly processSettings?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** More environment for every process of ours (fault points of drills). */
  readonly environment?: Readonly<Record<string, string>>;
  /** Whether JobManagers and TaskManagers run under supervisors, which start them again. Default true. */
  readonly supervised?: boolean;
}

/** A part of the cluster: etcd member, JobManager or TaskManager, as seen now. */
export interface ClusterProcess extends ManagedProcess {
  readonly alive: boolean;
  /** Its supervisor, if it has one. */
  readonly supervisor?: ManagedProcess & { readonly alive: boolean };
}

export interface EtcdPorts {
  readonly client: number;
  readonly peer: number;
  /** Where the other members reach this one. Default: `peer`. */
  readonly advertisedPeer?: number;
}

/** What the state file holds. */
export interface ClusterState {
  readonly clusterId: string;
  readonly createdAt: string;
  readonly options: LocalClusterOptions;
  readonly etcdMembers: readonly EtcdMemberSpec[];
  readonly endpoints: readonly string[];
  /** By JobManager name. */
  readonly restPorts: Readonly<Record<string, number>>;
  /** What was started: of a supervised process the supervisor. */
  processes: ManagedProcess[];
}

/** In the cluster's folder. */
export const stateFile = 'cluster.json';
const lockFile = 'cluster.lock';

/** Names, ports and folders of a new cluster. */
export async function planCluster(
  directory: string,
  options: LocalClusterOptions,
): Promise<ClusterState> {
  const members = 'members' in options.etcd ? options.etcd.members : 0;
  const etcdPorts = 'members' in options.etcd ? (options.etcd.ports ?? []) : [];
  const ports = await findFreePorts(2 * members + options.jobManagers);
  const take = (): number => ports.pop() ?? 0;
  const etcdMembers = Array.from({ length: members }, (_, i): EtcdMemberSpec => {
    const name = `etcd-${String(i + 1)}`;
    const given = etcdPorts[i];
    return {
      name,
      host: '127.0.0.1',
      clientPort: given?.client ?? take(),
      peerPort: given?.peer ?? take(),
      ...(given?.advertisedPeer !== undefined && { advertisedPeerPort: given.advertisedPeer }),
      dataDir: join(directory, 'etcd', name),
      logFile: join(directory, 'logs', `${name}.out`),
    };
  });
  const restPorts: Record<string, number> = {};
  for (let i = 1; i <= options.jobManagers; i += 1) restPorts[`jobmanager-${String(i)}`] = take();
  return {
    clusterId: options.clusterId,
    createdAt: new Date().toISOString(),
    options,
    etcdMembers,
    endpoints:
      'endpoints' in options.etcd ? options.etcd.endpoints : etcdMembers.map(etcdClientUrl),
    restPorts,
    processes: [],
  };
}

/**
 * One start at a time: the lock names the process that starts, and is taken over from a dead one. Returns what gives
 * it back; throws CLUSTER_START while another process has it.
 */
export function takeLock(directory: string): () => void {
  const path = join(directory, lockFile);
  const own = `${path}.${String(process.pid)}`;
  writeFileSync(own, JSON.stringify({ pid: process.pid, startedAt: startTimeOf(process.pid) }));
  try {
    for (;;) {
      try {
        // Never seen without its content, as a file would be that is written after it was created.
        linkSync(own, path);
        return () => {
          rmSync(path, { force: true });
        };
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
        const holder = readPidFile(path);
        if (holder !== undefined && isAlive(holder)) {
          throw new MillraceError(
            'CLUSTER_START',
            `the cluster in ${directory} is being started by process ${String(holder.pid)}; wait for it`,
          );
        }
        rmSync(path, { force: true });
      }
    }
  } finally {
    rmSync(own, { force: true });
  }
}

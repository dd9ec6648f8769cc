/** Which cluster's etcd a command speaks to directly: of a local cluster, or of a configuration. */
import type { Command } from 'commander';
import { MillraceError } from '../../lib/base/errors.js';
import type { Env } from '../../lib/base/env.js';
import { silentLogger } from '../../lib/base/logger.js';
import { MetricRegistry } from '../../lib/base/metrics.js';
import { SystemClock } from '../../lib/base/system-clock.js';
import { SystemRandom } from '../../lib/base/system-random.js';
import type { Configuration } from '../../config/configuration.js';
import { options } from '../../config/options.js';
import type { EtcdKvStore } from '../../ha/etcd/etcd-kv-store.js';
import type { LocalCluster } from '../local/local-cluster.js';
import { findLocalCluster } from './target.js';

export interface EtcdTargetOptions {
  readonly cluster?: string;
  readonly dir: string;
  readonly config?: string;
  readonly define?: readonly string[];
}

export interface EtcdTarget {
  readonly config: Configuration;
  readonly clusterId: string;
  /** Given: a cluster that this machine runs. */
  readonly local?: LocalCluster;
}

const collect = (value: string, previous: readonly string[] = []): string[] => [...previous, value];

export function withEtcdTarget(command: Command): Command {
  return command
    .option('--cluster <id>', 'local cluster (default: the one started last that runs)')
    .option('--dir <folder>', 'folder of local clusters', '.millrace')
    .option('--config <file>', 'instead: the configuration of a cluster, as its processes read it')
    .option('-D, --define <key=value>', 'a setting; may be repeated', collect);
}

/** @throws CONFIG, CLUSTER_NOT_FOUND. */
export async function findEtcdTarget(from: EtcdTargetOptions): Promise<EtcdTarget> {
  const { loadConfiguration } = await import('../../config/load.js');
  const definitions = from.define ?? [];
  const load = (more: readonly string[]): Configuration =>
    loadConfiguration({
      definitions: [...more, ...definitions],
      ...(from.config !== undefined && { file: from.config }),
    });
  const isNamed =
    from.config !== undefined ||
    definitions.some((one) => one.startsWith(`${options.highAvailabilityEtcdEndpoints.key}=`));
  if (from.cluster === undefined) {
    const config = load([]);
    if (isNamed || config.isSet(options.highAvailabilityEtcdEndpoints)) {
      return { config, clusterId: config.get(options.highAvailabilityClusterId) };
    }
  } else if (isNamed) {
    throw new MillraceError(
      'CONFIG',
      '--cluster names a local cluster: give either it, or --config or -D high-availability.etcd.endpoints=...',
    );
  }
  const local = await findLocalCluster(
    from,
    ', or give the configuration of a cluster with --config FILE',
  );
  const config = load([
    'high-availability.type=etcd',
    `high-availability.cluster-id=${local.clusterId}`,
    `high-availability.storageDir=${local.storageDir}`,
    `high-availability.etcd.endpoints=${local.endpoints.join(',')}`,
  ]);
  return { config, clusterId: local.clusterId, local };
}

/** What a command needs of the world; it speaks for itself, so nothing is logged. */
export function commandEnv(): Env {
  return {
    clock: new SystemClock(),
    random: new SystemRandom(),
    metrics: new MetricRegistry(),
    log: silentLogger,
  };
}

/** A connection of its own, for one command. Nothing is asked yet. */
export async function openEtcd(env: Env, config: Configuration): Promise<EtcdKvStore> {
  const [{ EtcdKvStore }, { etcdConnection }] = await Promise.all([
    import('../../ha/etcd/etcd-kv-store.js'),
    import('../etcd-connection.js'),
  ]);
  return new EtcdKvStore(env, etcdConnection(config));
}

import type { Configuration } from '../config/configuration.js';
import { options } from '../config/options.js';
import type { EtcdAuth, EtcdSslFiles } from '../ha/etcd/etcd-credentials.js';
import { MillraceError } from '../lib/base/errors.js';

export interface EtcdConnection {
  readonly endpoints: readonly string[];
  readonly ssl?: EtcdSslFiles;
  readonly auth?: EtcdAuth;
  readonly quotaBackendBytes?: number;
}

/** How to reach etcd, as configured; the same for every process of a cluster and their supervisors. */
export function etcdConnection(config: Configuration): EtcdConnection {
  const ssl = sslFiles(config);
  const auth = credentials(config);
  const quotaBackendBytes = config.get(options.highAvailabilityEtcdQuotaBackendSize);
  return {
    endpoints: config.get(options.highAvailabilityEtcdEndpoints),
    ...(ssl && { ssl }),
    ...(auth && { auth }),
    ...(quotaBackendBytes !== undefined && { quotaBackendBytes }),
  };
}

function sslFiles(config: Configuration): EtcdSslFiles | undefined {
  const caFile = config.get(options.highAvailabilityEtcdSslCaFile);
  const certFile = config.get(options.highAvailabilityEtcdSslCertFile);
  const keyFile = config.get(options.highAvailabilityEtcdSslKeyFile);
  const serverName = config.get(options.highAvailabilityEtcdSslServerName);
  const files: EtcdSslFiles = {
    ...(caFile !== undefined && { caFile }),
    ...(certFile !== undefined && { certFile }),
    ...(keyFile !== undefined && { keyFile }),
    ...(serverName !== undefined && { serverName }),
  };
  return Object.keys(files).length === 0 ? undefined : files;
}

function credentials(config: Configuration): EtcdAuth | undefined {
  const username = config.get(options.highAvailabilityEtcdUsername);
  const password = config.get(options.highAvailabilityEtcdPassword);
  if (username === undefined && password === undefined) return undefined;
  if (username === undefined || password === undefined) {
    throw new MillraceError(
      'CONFIG',
      'high-availability.etcd.username and high-availability.etcd.password belong together: set both, or none',
    );
  }
  return { username, password };
}

import { readFileSync } from 'node:fs';
import { Etcd3, type IOptions } from 'etcd3';
import { prefixEnd } from '../../ha/kv-store.js';

/**
 * Does what docs/guides/etcd.md tells an administrator to do, then switches authentication on. The password of a user
 * is its name with an exclamation mark.
 */
export async function enableAuth(connection: IOptions, clusterId: string): Promise<void> {
  const guide = readFileSync(
    new URL('../../../docs/guides/etcd.md', import.meta.url),
    'utf8',
  ).replaceAll('/default/', `/${clusterId}/`);
  const admin = new Etcd3(connection);
  const { auth } = admin;
  for (const [, command = ''] of guide.matchAll(/^etcdctl (.*)$/gm)) {
    const isPrefix = command.includes('--prefix=true');
    const [group, verb, ...rest] = command.replace('--prefix=true ', '').split(/\s+/);
    const [first = '', second = '', third = ''] = rest;
    const action = `${String(group)} ${String(verb)}`;
    if (action === 'role add') await auth.roleAdd({ name: first });
    else if (action === 'user add') await auth.userAdd({ name: first, password: `${first}!` });
    else if (action === 'user grant-role') await auth.userGrantRole({ user: first, role: second });
    else if (action === 'role grant-permission') {
      const permType = second === 'read' ? 'Read' : 'Readwrite';
      const range_end = Buffer.from(isPrefix ? prefixEnd(third) : '');
      const perm = { permType, key: Buffer.from(third), range_end } as const;
      await auth.roleGrantPermission({ name: first, perm });
    }
  }
  await auth.roleAdd({ name: 'root' });
  await auth.userAdd({ name: 'root', password: 'root!' });
  await auth.userGrantRole({ user: 'root', role: 'root' });
  await auth.authEnable();
  admin.close();
}

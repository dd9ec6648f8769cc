import type { RouteInfo } from './routes.js';

/** A small OpenAPI 3.1 document of the routes: paths, parameters and sentences, no schemas. */
export function openApi(routes: readonly RouteInfo[], version: string): Record<string, unknown> {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) {
    const names = [...route.path.matchAll(/:(\w+)/g)].map((match) => match[1] ?? '');
    const path = route.path.replace(/:(\w+)/g, '{$1}');
    const operations = (paths[path] ??= {});
    operations[route.method.toLowerCase()] = {
      summary: route.summary,
      parameters: [
        ...names.map((name) => ({ name, in: 'path', required: true, schema: { type: 'string' } })),
        ...(route.query ?? []).map((name) => ({ name, in: 'query', schema: { type: 'string' } })),
      ],
      responses: {
        [route.method === 'GET' ? '200' : '202']: { description: 'Done.' },
        '503': { description: 'No leader answers right now; Retry-After says when to ask again.' },
        default: { description: 'An error: `{errors, code, retry}`.' },
      },
    };
  }
  return {
    openapi: '3.1.0',
    info: { title: 'Millrace', version },
    servers: [{ url: '/v1' }],
    paths,
  };
}

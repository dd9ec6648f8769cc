import { dirname } from 'node:path';
import { fileURLToPath } from 'node:url';
import { writeDocuments } from './documents.js';

writeDocuments(dirname(dirname(dirname(fileURLToPath(import.meta.url)))));

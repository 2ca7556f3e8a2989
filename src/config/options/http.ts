/** Options of the HTTP listener: keys, TLS, further APIs, paths. */
import { booleanOption, maybePath, textOption, type Option } from '../option.ts'

const own = { origin: 'warmpath' as const, since: 'Warmpath 0.3' }
const serving = 'Serving'

export const httpOptions = {
  apiKeysFile: maybePath({
    ...own, name: 'api-keys-file', env: ['WARMPATH_API_KEYS_FILE'], section: serving, defaultText: 'no key is asked for',
    help: 'Requests under /v1 must carry one of the keys whose hashes stand here, one NAME:sha256:HEX per line (warmpath api-key NAME makes one). Read anew when it changes, and on SIGHUP.',
  }),
  tlsCertPath: maybePath({ name: 'tls-cert-path', env: ['DYN_TLS_CERT_PATH'], section: serving, help: 'Certificate of the HTTP API, PEM; with --tls-key-path. Read anew when it changes, and on SIGHUP.' }),
  tlsKeyPath: maybePath({ name: 'tls-key-path', env: ['DYN_TLS_KEY_PATH'], section: serving, help: 'Its private key, PEM.' }),
  tlsClientCaPath: maybePath({
    name: 'tls-client-ca-cert-path', env: ['DYN_TLS_CLIENT_CA_CERT_PATH'], section: serving, help: 'Authority of client certificates, PEM; clients must show one then.',
  }),
  anthropicApi: booleanOption(false, { name: 'enable-anthropic-api', env: ['DYN_ENABLE_ANTHROPIC_API'], section: serving, help: "Serve Anthropic's Messages API at /v1/messages." }),
  stripAnthropicPreamble: booleanOption(true, {
    name: 'strip-anthropic-preamble', env: ['DYN_STRIP_ANTHROPIC_PREAMBLE'], section: serving,
    help: 'Leave out the line x-anthropic-billing-header with which a client begins its system prompt: it changes with every request, and no cached prefix would match.',
  }),
  extensionDisabled: booleanOption(false, { name: 'disable-frontend-nvext', isFlag: false, env: ['DYN_DISABLE_FRONTEND_NVEXT'], section: serving, help: 'Pass over nvext of requests.' }),
  chatPath: pathOption('chat', 'CHAT', '/v1/chat/completions'),
  completionsPath: pathOption('completions', 'CMP', '/v1/completions'),
  responsesPath: pathOption('responses', 'RESPONSES', '/v1/responses'),
  messagesPath: pathOption('anthropic', 'ANTHROPIC', '/v1/messages'),
  embeddingsPath: pathOption('embeddings', 'EMB', '/v1/embeddings'),
  modelsPath: pathOption('models', 'MODELS', '/v1/models'),
  healthPath: pathOption('health', 'HEALTH', '/health'),
  livePath: pathOption('live', 'LIVE', '/live'),
  metricsPath: pathOption('metrics', 'METRICS', '/metrics'),
}

function pathOption(route: string, variable: string, path: string): Option<string> {
  return textOption(path, { name: `http-svc-${route}-path`, isFlag: false, env: [`DYN_HTTP_SVC_${variable}_PATH`], section: serving, help: `Path of the route \`${path}\`.` })
}

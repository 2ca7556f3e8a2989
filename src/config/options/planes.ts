/** Settings of NATS and of TLS between processes, without flags, as Dynamo's runtime takes them. */
import { booleanOption, maybePath, maybeText, numberOption, textOption } from '../option.ts'

const env = (name: string, ...names: string[]) => ({ name, isFlag: false as const, since: 'Dynamo', env: names })
const nats = 'NATS'
const tls = 'TLS between processes'

export const natsOptions = {
  natsServer: textOption('nats://localhost:4222', {
    ...env('nats-server', 'NATS_SERVER'), section: nats,
    help: 'Addresses of NATS, separated by commas; `tls://` for TLS. Connected to when a plane or a worker asks for it.',
  }),
  natsRequestTimeoutSeconds: numberOption(10, {
    ...env('nats-request-timeout', 'DYN_NATS_REQUEST_TIMEOUT_SECS'), minimum: 0.001, unit: 'seconds', section: nats,
    help: 'How long a worker may take to acknowledge a request over NATS, waiting for a lost connection included.',
  }),
  natsStartupTimeoutSeconds: numberOption(120, {
    ...env('nats-startup-connect-timeout', 'NATS_STARTUP_CONNECT_TIMEOUT_SECONDS'), minimum: 0, unit: 'seconds', section: nats, help: 'How long the start waits for NATS.',
  }),
  natsUsername: maybeText({ ...env('nats-auth-username', 'NATS_AUTH_USERNAME'), section: nats, defaultText: 'user', help: 'User name; counts with a password.' }),
  natsPassword: maybeText({ ...env('nats-auth-password', 'NATS_AUTH_PASSWORD'), isSecret: true, section: nats, defaultText: 'user', help: 'Password.' }),
  natsToken: maybeText({ ...env('nats-auth-token', 'NATS_AUTH_TOKEN'), isSecret: true, section: nats, help: 'Token.' }),
  natsNkey: maybeText({ ...env('nats-auth-nkey', 'NATS_AUTH_NKEY'), isSecret: true, section: nats, help: 'Seed of an NKey.' }),
  natsCredentials: maybePath({ ...env('nats-auth-credentials-file', 'NATS_AUTH_CREDENTIALS_FILE'), section: nats, help: 'File of credentials.' }),
  natsTlsCa: maybePath({ ...env('nats-tls-ca-cert-path', 'NATS_TLS_CA_CERT_PATH'), section: nats, help: 'Authority of the server, a PEM file.' }),
  natsTlsCert: maybePath({ ...env('nats-tls-client-cert-path', 'NATS_TLS_CLIENT_CERT_PATH'), section: nats, help: 'Client certificate, a PEM file.' }),
  natsTlsKey: maybePath({ ...env('nats-tls-client-key-path', 'NATS_TLS_CLIENT_KEY_PATH'), section: nats, help: 'Key of it.' }),
  natsTlsInsecure: booleanOption(false, { ...env('nats-tls-insecure', 'NATS_TLS_INSECURE'), section: nats, help: 'Take any certificate of the server.' }),
}

export const tlsOptions = {
  tcpTlsCert: maybePath({
    ...env('tcp-tls-cert-path', 'DYN_TCP_TLS_CERT_PATH'), section: tls,
    help: 'Certificate of our listeners, for requests and responses; with the key, they speak TLS only.',
  }),
  tcpTlsKey: maybePath({ ...env('tcp-tls-key-path', 'DYN_TCP_TLS_KEY_PATH'), section: tls, help: 'Key of it.' }),
  tcpTlsClientCa: maybePath({
    ...env('tcp-tls-client-ca-cert-path', 'DYN_TCP_TLS_CLIENT_CA_CERT_PATH'), section: tls, help: 'Whoever connects must show a certificate of this authority.',
  }),
  tcpTlsCa: maybePath({
    ...env('tcp-tls-ca-cert-path', 'DYN_TCP_TLS_CA_CERT_PATH'), section: tls, help: 'Authority of the processes that we connect to; connections are TLS then.',
  }),
  tcpTlsClientCert: maybePath({ ...env('tcp-tls-client-cert-path', 'DYN_TCP_TLS_CLIENT_CERT_PATH'), section: tls, help: 'Certificate that we show to them.' }),
  tcpTlsClientKey: maybePath({ ...env('tcp-tls-client-key-path', 'DYN_TCP_TLS_CLIENT_KEY_PATH'), section: tls, help: 'Key of it.' }),
  tcpTlsInsecure: booleanOption(false, { ...env('tcp-tls-insecure', 'DYN_TCP_TLS_INSECURE'), section: tls, help: 'Take any certificate of theirs.' }),
  tcpTlsServerName: maybeText({
    ...env('tcp-tls-server-name', 'DYN_TCP_TLS_SERVER_NAME'), section: tls, defaultText: 'their address', help: 'The name that their certificates must have.',
  }),
  tcpTlsHandshakeSeconds: numberOption(3, {
    ...env('tcp-tls-handshake-timeout', 'DYN_TCP_TLS_HANDSHAKE_TIMEOUT_SECS'), minimum: 0.001, unit: 'seconds', section: tls, help: 'How long a handshake may take.',
  }),
}

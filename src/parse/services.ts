import {table} from '../util/table.js'

/** Port names of /etc/services that tools print without `-n`; others, and those that mean another port on another system (`http-alt`), stay names, which nothing understands. */
export const SERVICES: Readonly<Record<string, number>> = table({
  ssh: 22,
  smtp: 25,
  domain: 53,
  bootps: 67,
  bootpc: 68,
  http: 80,
  kerberos: 88,
  sunrpc: 111,
  ntp: 123,
  snmp: 161,
  bgp: 179,
  ldap: 389,
  https: 443,
  ldaps: 636,
  'iscsi-target': 3260,
  mysql: 3306,
  postgresql: 5432,
  mdns: 5353,
  amqp: 5672,
  redis: 6379,
})

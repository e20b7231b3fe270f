/** What `ip` prints for people says the same as what it prints as JSON: the real one, of a namespace with a bit of everything. */
import {execFileSync} from 'node:child_process'
import {expect} from 'chai'
import {parseAddresses, parseLinks, parsePolicyRules, parseRoutes} from '../../src/parse/iproute.js'
import {obstacle} from './lab.js'

const NAME = `iptext${process.pid}`
const SETUP = `
link set lo up
link add eth0 type veth peer name far0
link add cni0 type bridge
link add veth1 type veth peer name veth2
link set veth1 master cni0
link add dummy0 mtu 1400 type veth peer name far1
link set eth0 up
link set far0 up
link set cni0 up
link set veth1 up
link set veth2 up
link set dummy0 up
link add vx0 type vxlan id 7 dev eth0 dstport 8472 nolearning
link set cni0 type bridge nf_call_iptables 1
link set veth1 type bridge_slave hairpin on isolated on
addr add 192.0.2.11/24 brd + dev eth0
addr add 192.0.2.12/24 dev eth0
addr add 10.1.1.1/24 dev cni0 noprefixroute
addr add 10.9.9.1 peer 10.9.9.2/32 dev dummy0
addr add fd00:5::11/64 dev eth0 nodad
addr add fd00:5::12/64 dev eth0 nodad preferred_lft 0
route add default via 192.0.2.1 dev eth0 metric 100
route add 10.244.0.0/16 nexthop via 192.0.2.2 dev eth0 weight 2 nexthop via 192.0.2.3 dev eth0 weight 1
route add 10.1.1.0/24 dev cni0 src 10.1.1.1 scope link
route add 10.7.7.7 via 10.9.9.2 dev dummy0 onlink mtu 1300 table 100
route add blackhole 10.66.0.0/16
route add unreachable 10.67.0.0/16 metric 5
route add prohibit 10.68.0.0/16
route add throw 10.69.0.0/16 table 100
route add 10.70.0.0/16 via inet6 fd00:5::1 dev eth0
rule add from 10.1.1.0/24 lookup 100 priority 100
rule add not from all fwmark 0xca6c/0xff lookup 200 priority 200
rule add iif cni0 to 10.8.0.0/16 lookup 100 priority 300
rule add oif eth0 lookup main suppress_prefixlength 0 priority 400
rule add from all fwmark 0x1 unreachable priority 500
rule add from 10.3.0.1 blackhole priority 600
rule add goto 32766 priority 700
rule add uidrange 5-9 lookup 100 priority 800
rule add ipproto tcp dport 80 lookup 100 priority 900
-6 route add default via fd00:5::1 dev eth0
-6 rule add from fd00:9::/64 lookup 100 priority 100
`
const ip = (...words: string[]): string => execFileSync('ip', ['-n', NAME, ...words], {encoding: 'utf8'})

/** Without how each form words a line. */
const plain = (value: readonly object[]): unknown[] => value.map((one) => ({...one, text: ''}))

describe('ip, for people and as JSON', function () {
  this.timeout(30_000)
  before(function () {
    const why = obstacle()
    if (why !== undefined) {
      if (process.env['CI']) throw new Error(why)
      this.skip()
    }
    execFileSync('ip', ['netns', 'add', NAME])
    for (const line of SETUP.trim().split('\n')) ip(...line.split(' '))
  })
  after(() => {
    if (obstacle() === undefined) execFileSync('ip', ['netns', 'del', NAME])
  })

  for (const family of [4, 6] as const) {
    const flag = `-${family}`
    it(`routes, IPv${family}`, () => {
      const words = [flag, 'route', 'show', 'table', 'all']
      const [text, json] = [ip(...words), ip('-j', ...words)].map((out) => parseRoutes(out, 'f', family))
      expect(text!.problems).to.deep.equal([])
      expect(text!.value.length).to.be.greaterThan(5)
      expect(plain(text!.value)).to.deep.equal(plain(json!.value))
    })
    it(`rules, IPv${family}`, () => {
      const [text, json] = [ip(flag, 'rule'), ip('-j', flag, 'rule')].map((out) => parsePolicyRules(out, 'f', family))
      expect(text!.problems).to.deep.equal([])
      expect(plain(text!.value.map((rule) => ({...rule, unmodelled: rule.unmodelled.length > 0})))).to.deep.equal(
        plain(json!.value.map((rule) => ({...rule, unmodelled: rule.unmodelled.length > 0}))),
      )
    })
  }
  it('addresses, in blocks and one a line', () => {
    const json = parseAddresses(ip('-j', 'addr'), 'f').value
    expect(json.length).to.be.greaterThan(6)
    for (const words of [['addr'], ['-d', 'addr'], ['-o', 'addr']]) {
      const {value, problems} = parseAddresses(ip(...words), 'f')
      expect(problems, words.join(' ')).to.deep.equal([])
      expect(value, words.join(' ')).to.deep.equal(json)
    }
  })
  it('devices, with and without -d', () => {
    for (const words of [['link'], ['-d', 'link'], ['-d', 'addr']]) {
      const [text, json] = [ip(...words), ip('-j', ...words)].map((out) => parseLinks(out, 'f'))
      expect(text!.problems, words.join(' ')).to.deep.equal([])
      expect(text!.value, words.join(' ')).to.deep.equal(json!.value)
    }
  })
})

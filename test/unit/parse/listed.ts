/** Rules as iptables-save, `iptables -nvL` and `iptables -L` of one and the same table print them (iptables 1.8.9, legacy and nft). */
export const LISTED: readonly (readonly [save: string, verbose: string, plain: string])[] = [
  [
    '-A LISTED -p icmp -m icmp --icmp-type 8 -j ACCEPT',
    '    0     0 ACCEPT     1    --  *      *       0.0.0.0/0            0.0.0.0/0            icmptype 8',
    'ACCEPT     icmp --  anywhere             anywhere             icmp echo-request',
  ],
  [
    '-A LISTED -p icmp -j ACCEPT',
    '    0     0 ACCEPT     1    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT     icmp --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT',
    '    0     0 ACCEPT     6    --  *      *       0.0.0.0/0            0.0.0.0/0            tcp flags:0x17/0x02',
    'ACCEPT     tcp  --  anywhere             anywhere             tcp flags:FIN,SYN,RST,ACK/SYN',
  ],
  [
    '-A LISTED -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu',
    '    0     0 TCPMSS     6    --  *      *       0.0.0.0/0            0.0.0.0/0            tcp flags:0x06/0x02 TCPMSS clamp to PMTU',
    'TCPMSS     tcp  --  anywhere             anywhere             tcp flags:SYN,RST/SYN TCPMSS clamp to PMTU',
  ],
  [
    '-A LISTED -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ctstate RELATED,ESTABLISHED',
    'ACCEPT     all  --  anywhere             anywhere             ctstate RELATED,ESTABLISHED',
  ],
  [
    '-A LISTED -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP',
    '    0     0 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            ! ctstate RELATED,ESTABLISHED,DNAT',
    'DROP       all  --  anywhere             anywhere             ! ctstate RELATED,ESTABLISHED,DNAT',
  ],
  [
    '-A LISTED -p tcp -m state --state NEW -m tcp --dport 22 -j ACCEPT',
    '    0     0 ACCEPT     6    --  *      *       0.0.0.0/0            0.0.0.0/0            state NEW tcp dpt:22',
    'ACCEPT     tcp  --  anywhere             anywhere             state NEW tcp dpt:ssh',
  ],
  [
    '-A LISTED -p udp -m multiport --dports 4789,8472 -j ACCEPT',
    '    0     0 ACCEPT     17   --  *      *       0.0.0.0/0            0.0.0.0/0            multiport dports 4789,8472',
    'ACCEPT     udp  --  anywhere             anywhere             multiport dports 4789,8472',
  ],
  [
    '-A LISTED -p udp -m multiport --dports 15,53 -m comment --comment "x y" -j ACCEPT',
    '    0     0 ACCEPT     17   --  *      *       0.0.0.0/0            0.0.0.0/0            multiport dports 15,53 /* x y */',
    'ACCEPT     udp  --  anywhere             anywhere             multiport dports 15,domain /* x y */',
  ],
  [
    '-A LISTED -p tcp -m multiport ! --dports 80,443 -j DROP',
    '    0     0 DROP       6    --  *      *       0.0.0.0/0            0.0.0.0/0            multiport dports  !80,443',
    'DROP       tcp  --  anywhere             anywhere             multiport dports  !http,https',
  ],
  [
    '-A LISTED -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "',
    '    0     0 LOG        0    --  *      *       0.0.0.0/0            0.0.0.0/0            limit: avg 3/min burst 10 LOG flags 0 level 4 prefix "[UFW BLOCK] "',
    'LOG        all  --  anywhere             anywhere             limit: avg 3/min burst 10 LOG level warn prefix "[UFW BLOCK] "',
  ],
  [
    '-A LISTED -m limit --limit 10/min --limit-burst 10 -m mark ! --mark 0x10000/0x10000 -j NFLOG --nflog-group 100',
    '    0     0 NFLOG      0    --  *      *       0.0.0.0/0            0.0.0.0/0            limit: avg 10/min burst 10 mark match ! 0x10000/0x10000 nflog-group 100',
    'NFLOG      all  --  anywhere             anywhere             limit: avg 10/min burst 10 mark match ! 0x10000/0x10000 nflog-group 100',
  ],
  [
    '-A LISTED -m mark --mark 0x20000/0x20000 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            mark match 0x20000/0x20000',
    'ACCEPT     all  --  anywhere             anywhere             mark match 0x20000/0x20000',
  ],
  [
    '-A LISTED -d 169.254.0.3/32 -p tcp -m owner --uid-owner 0 -m tcp --dport 80 -j ACCEPT',
    '    0     0 ACCEPT     6    --  *      *       0.0.0.0/0            169.254.0.3          owner UID match 0 tcp dpt:80',
    'ACCEPT     tcp  --  anywhere             169.254.0.3          owner UID match root tcp dpt:http',
  ],
  [
    '-A LISTED -m owner --uid-owner 1337 -j RETURN',
    '    0     0 RETURN     0    --  *      *       0.0.0.0/0            0.0.0.0/0            owner UID match 1337',
    'RETURN     all  --  anywhere             anywhere             owner UID match 1337',
  ],
  [
    '-A LISTED -o lo -m owner ! --uid-owner 1337 -j RETURN',
    '    0     0 RETURN     0    --  *      lo      0.0.0.0/0            0.0.0.0/0            ! owner UID match 1337',
    'RETURN     all  --  anywhere             anywhere             ! owner UID match 1337',
  ],
  [
    '-A LISTED -m physdev --physdev-is-bridged -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            PHYSDEV match --physdev-is-bridged',
    'ACCEPT     all  --  anywhere             anywhere             PHYSDEV match --physdev-is-bridged',
  ],
  [
    '-A LISTED -m physdev --physdev-out vethwe-bridge --physdev-is-bridged -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            PHYSDEV match --physdev-out vethwe-bridge --physdev-is-bridged',
    'ACCEPT     all  --  anywhere             anywhere             PHYSDEV match --physdev-out vethwe-bridge --physdev-is-bridged',
  ],
  [
    '-A LISTED -m physdev ! --physdev-in vethwe-bridge -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            PHYSDEV match ! --physdev-in vethwe-bridge',
    'ACCEPT     all  --  anywhere             anywhere             PHYSDEV match ! --physdev-in vethwe-bridge',
  ],
  [
    '-A LISTED -m addrtype --src-type LOCAL -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ADDRTYPE match src-type LOCAL',
    'ACCEPT     all  --  anywhere             anywhere             ADDRTYPE match src-type LOCAL',
  ],
  [
    '-A LISTED -m addrtype ! --dst-type LOCAL -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ADDRTYPE match dst-type !LOCAL',
    'ACCEPT     all  --  anywhere             anywhere             ADDRTYPE match dst-type !LOCAL',
  ],
  [
    '-A LISTED -m addrtype --dst-type LOCAL --limit-iface-in -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ADDRTYPE match dst-type LOCAL limit-in',
    'ACCEPT     all  --  anywhere             anywhere             ADDRTYPE match dst-type LOCAL limit-in',
  ],
  [
    '-A LISTED -m iprange --src-range 10.0.0.1-10.0.0.9 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            source IP range 10.0.0.1-10.0.0.9',
    'ACCEPT     all  --  anywhere             anywhere             source IP range 10.0.0.1-10.0.0.9',
  ],
  [
    '-A LISTED -m hashlimit --hashlimit-upto 20/min --hashlimit-burst 5 --hashlimit-mode srcip --hashlimit-name foo -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            limit: up to 20/min burst 5 mode srcip',
    'ACCEPT     all  --  anywhere             anywhere             limit: up to 20/min burst 5 mode srcip',
  ],
  [
    '-A LISTED -m connlimit --connlimit-above 10 --connlimit-mask 32 --connlimit-saddr -j DROP',
    '    0     0 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            #conn src/32 > 10',
    'DROP       all  --  anywhere             anywhere             #conn src/32 > 10',
  ],
  [
    '-A LISTED -m string --string "foo" --algo bm -j DROP',
    '    0     0 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            STRING match  "foo" ALGO name bm',
    'DROP       all  --  anywhere             anywhere             STRING match  "foo" ALGO name bm',
  ],
  [
    '-A LISTED -m u32 --u32 "0x0>>0x16&0x3c@0x4=0x29" -j DROP',
    '    0     0 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            u32 "0x0>>0x16&0x3c@0x4=0x29"',
    'DROP       all  --  anywhere             anywhere             u32 "0x0>>0x16&0x3c@0x4=0x29"',
  ],
  [
    '-A LISTED -m length --length 0:100 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            length 0:100',
    'ACCEPT     all  --  anywhere             anywhere             length 0:100',
  ],
  [
    '-A LISTED -m ttl --ttl-lt 5 -j DROP',
    '    0     0 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            TTL match TTL < 5',
    'DROP       all  --  anywhere             anywhere             TTL match TTL < 5',
  ],
  [
    '-A LISTED -m mac --mac-source 00:11:22:33:44:55 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            MAC 00:11:22:33:44:55',
    'ACCEPT     all  --  anywhere             anywhere             MAC 00:11:22:33:44:55',
  ],
  [
    '-A LISTED -m pkttype --pkt-type broadcast -j DROP',
    '    0     0 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            PKTTYPE = broadcast',
    'DROP       all  --  anywhere             anywhere             PKTTYPE = broadcast',
  ],
  [
    '-A LISTED -m time --timestart 10:00:00 --timestop 11:00:00 --datestop 2038-01-19T03:14:07 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            TIME from 10:00:00 to 11:00:00 UTC',
    'ACCEPT     all  --  anywhere             anywhere             TIME from 10:00:00 to 11:00:00 UTC',
  ],
  [
    '-A LISTED -p tcp -m tcpmss --mss 1400:1500 -j ACCEPT',
    '    0     0 ACCEPT     6    --  *      *       0.0.0.0/0            0.0.0.0/0            tcpmss match 1400:1500',
    'ACCEPT     tcp  --  anywhere             anywhere             tcpmss match 1400:1500',
  ],
  [
    '-A LISTED -m dscp --dscp 0x10 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            DSCP match 0x10',
    'ACCEPT     all  --  anywhere             anywhere             DSCP match 0x10',
  ],
  [
    '-A LISTED -m tos --tos 0x10/0x3f -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            tos match0x10/0x3f',
    'ACCEPT     all  --  anywhere             anywhere             tos match Minimize-Delay',
  ],
  [
    '-A LISTED -m socket --transparent -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            socket --transparent',
    'ACCEPT     all  --  anywhere             anywhere             socket --transparent',
  ],
  [
    '-A LISTED -m socket --transparent --nowildcard -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            socket --transparent --nowildcard',
    'ACCEPT     all  --  anywhere             anywhere             socket --transparent --nowildcard',
  ],
  [
    '-A LISTED -m recent --set --name foo --mask 255.255.255.255 --rsource -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            recent: SET name: foo side: source mask: 255.255.255.255',
    'ACCEPT     all  --  anywhere             anywhere             recent: SET name: foo side: source mask: 255.255.255.255',
  ],
  [
    '-A LISTED -m recent --update --seconds 30 --hitcount 6 --name DEFAULT --mask 255.255.255.255 --rsource -j DROP',
    '    0     0 DROP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            recent: UPDATE seconds: 30 hit_count: 6 name: DEFAULT side: source mask: 255.255.255.255',
    'DROP       all  --  anywhere             anywhere             recent: UPDATE seconds: 30 hit_count: 6 name: DEFAULT side: source mask: 255.255.255.255',
  ],
  [
    '-A LISTED -m recent --rcheck --seconds 10800 --reap --name X --mask 255.255.255.255 --rsource -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            recent: CHECK seconds: 10800 reap name: X side: source mask: 255.255.255.255',
    'ACCEPT     all  --  anywhere             anywhere             recent: CHECK seconds: 10800 reap name: X side: source mask: 255.255.255.255',
  ],
  [
    '-A LISTED -m policy --dir in --pol ipsec --proto esp -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            policy match dir in pol ipsec proto 50',
    'ACCEPT     all  --  anywhere             anywhere             policy match dir in pol ipsec proto esp',
  ],
  [
    '-A LISTED -m policy --dir out --pol none -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            policy match dir out pol none',
    'ACCEPT     all  --  anywhere             anywhere             policy match dir out pol none',
  ],
  [
    '-A LISTED -m connmark --mark 0x1/0x1 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            connmark match  0x1/0x1',
    'ACCEPT     all  --  anywhere             anywhere             connmark match  0x1/0x1',
  ],
  [
    '-A LISTED -m helper --helper ftp -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            helper match "ftp"',
    'ACCEPT     all  --  anywhere             anywhere             helper match "ftp"',
  ],
  [
    '-A LISTED -m conntrack --ctorigdst 10.0.0.1 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ctorigdst 10.0.0.1',
    'ACCEPT     all  --  anywhere             anywhere             ctorigdst 10.0.0.1',
  ],
  [
    '-A LISTED -m conntrack --ctstate NEW --ctdir ORIGINAL -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ctstate NEW ctdir ORIGINAL',
    'ACCEPT     all  --  anywhere             anywhere             ctstate NEW ctdir ORIGINAL',
  ],
  [
    '-A LISTED -m cgroup --cgroup 1 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            cgroup 1',
    'ACCEPT     all  --  anywhere             anywhere             cgroup 1',
  ],
  [
    '-A LISTED -m bpf --bytecode "4,48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0" -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0           match bpf 48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0',
    'ACCEPT     all  --  anywhere             anywhere            match bpf 48 0 0 9,21 0 1 6,6 0 0 1,6 0 0 0',
  ],
  [
    '-A LISTED -p tcp -m tcp --dport 80:90 -j REJECT --reject-with tcp-reset',
    '    0     0 REJECT     6    --  *      *       0.0.0.0/0            0.0.0.0/0            tcp dpts:80:90 reject-with tcp-reset',
    'REJECT     tcp  --  anywhere             anywhere             tcp dpts:http:90 reject-with tcp-reset',
  ],
  [
    '-A LISTED -p udp -m udp --sport 53 -j REJECT --reject-with icmp-admin-prohibited',
    '    0     0 REJECT     17   --  *      *       0.0.0.0/0            0.0.0.0/0            udp spt:53 reject-with icmp-admin-prohibited',
    'REJECT     udp  --  anywhere             anywhere             udp spt:domain reject-with icmp-admin-prohibited',
  ],
  [
    '-A LISTED -p ipencap -j ACCEPT',
    '    0     0 ACCEPT     4    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT     ipencap --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -p vrrp -j ACCEPT',
    '    0     0 ACCEPT     112  --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT     vrrp --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -p esp -j ACCEPT',
    '    0     0 ACCEPT     50   --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT     esp  --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -p gre -j ACCEPT',
    '    0     0 ACCEPT     47   --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT     gre  --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -p igmp -j ACCEPT',
    '    0     0 ACCEPT     2    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT     igmp --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -p sctp -m sctp --dport 36412 -j ACCEPT',
    '    0     0 ACCEPT     132  --  *      *       0.0.0.0/0            0.0.0.0/0            sctp dpt:36412',
    'ACCEPT     sctp --  anywhere             anywhere             sctp dpt:36412',
  ],
  [
    '-A LISTED -s 10.0.0.0/8 ! -d 10.0.0.0/8 -i eth0 ! -o eth1 -j ACCEPT',
    '    0     0 ACCEPT     0    --  eth0   !eth1   10.0.0.0/8          !10.0.0.0/8          ',
    'ACCEPT     all  --  10.0.0.0/8          !10.0.0.0/8          ',
  ],
  [
    '-A LISTED ! -s 127.0.0.0/8 -d 127.0.0.0/8 -j DROP',
    '    0     0 DROP       0    --  *      *      !127.0.0.0/8          127.0.0.0/8         ',
    'DROP       all  -- !loopback/8           loopback/8          ',
  ],
  [
    '-A LISTED -d 224.0.0.0/4 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            224.0.0.0/4         ',
    'ACCEPT     all  --  anywhere             224.0.0.0/4         ',
  ],
  [
    '-A LISTED ! -p tcp -j ACCEPT',
    '    0     0 ACCEPT    !6    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT    !tcp  --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -f -j DROP',
    '    0     0 DROP       0    -f  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'DROP       all  -f  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -g TESTCH',
    '    0     0 TESTCH     0    --  *      *       0.0.0.0/0            0.0.0.0/0           [goto] ',
    'TESTCH     all  --  anywhere             anywhere            [goto] ',
  ],
  [
    '-A LISTED -s 10.0.0.0/255.255.0.255 -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       10.0.0.0/255.255.0.255  0.0.0.0/0           ',
    'ACCEPT     all  --  10.0.0.0/255.255.0.255  anywhere            ',
  ],
  [
    '-A LISTED -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'ACCEPT     all  --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED',
    '    0     0            0    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    '           all  --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -m statistic --mode random --probability 0.33333333349 -j TESTCH',
    '    0     0 TESTCH     0    --  *      *       0.0.0.0/0            0.0.0.0/0            statistic mode random probability 0.33333333349',
    'TESTCH     all  --  anywhere             anywhere             statistic mode random probability 0.33333333349',
  ],
  [
    '-A LISTED -m statistic --mode nth --every 3 --packet 1 -j TESTCH',
    '    0     0 TESTCH     0    --  *      *       0.0.0.0/0            0.0.0.0/0            statistic mode nth every 3 packet 1',
    'TESTCH     all  --  anywhere             anywhere             statistic mode nth every 3 packet 1',
  ],
  [
    '-A LISTED -m set --match-set testset dst,dst -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            match-set testset dst,dst',
    'ACCEPT     all  --  anywhere             anywhere             match-set testset dst,dst',
  ],
  [
    '-A LISTED -m set ! --match-set testset src,src -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            ! match-set testset src,src',
    'ACCEPT     all  --  anywhere             anywhere             ! match-set testset src,src',
  ],
  [
    '-A LISTED -m set --match-set testset dst,dst --return-nomatch -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            match-set testset dst,dst return-nomatch',
    'ACCEPT     all  --  anywhere             anywhere             match-set testset dst,dst return-nomatch',
  ],
  [
    '-A LISTED -m comment --comment "allow */ weird" -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            /* allow */ weird */',
    'ACCEPT     all  --  anywhere             anywhere             /* allow */ weird */',
  ],
  [
    '-A LISTED -m comment --comment "allow \\"q\\" weird" -j ACCEPT',
    '    0     0 ACCEPT     0    --  *      *       0.0.0.0/0            0.0.0.0/0            /* allow "q" weird */',
    'ACCEPT     all  --  anywhere             anywhere             /* allow "q" weird */',
  ],
  [
    '-A LISTED -j SET --add-set testset dst,dst',
    '    0     0 SET        0    --  *      *       0.0.0.0/0            0.0.0.0/0            add-set testset dst,dst',
    'SET        all  --  anywhere             anywhere             add-set testset dst,dst',
  ],
  [
    '-A LISTED -m addrtype --dst-type LOCAL --limit-iface-in -j CONNMARK --set-xmark 0x80/0x80',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            ADDRTYPE match dst-type LOCAL limit-in CONNMARK or 0x80',
    'CONNMARK   all  --  anywhere             anywhere             ADDRTYPE match dst-type LOCAL limit-in CONNMARK or 0x80',
  ],
  [
    '-A LISTED -j CONNMARK --restore-mark --nfmask 0x80 --ctmask 0x80',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK restore mask 0x80',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK restore mask 0x80',
  ],
  [
    '-A LISTED -j CONNMARK --save-mark --nfmask 0xffffffff --ctmask 0xffffffff',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK save',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK save',
  ],
  [
    '-A LISTED -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xffff',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK save nfmask 0xff ctmask ~0xffff',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK save nfmask 0xff ctmask ~0xffff',
  ],
  [
    '-A LISTED -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK restore',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK restore',
  ],
  [
    '-A LISTED -j CONNMARK --set-xmark 0x0/0xffffffff',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK and 0x0',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK and 0x0',
  ],
  [
    '-A LISTED -j CONNMARK --set-xmark 0x5/0xffffffff',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK set 0x5',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK set 0x5',
  ],
  [
    '-A LISTED -j CONNMARK --set-xmark 0x80/0x0',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK xor 0x80',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK xor 0x80',
  ],
  [
    '-A LISTED -j CONNMARK --set-xmark 0x0/0x10',
    '    0     0 CONNMARK   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CONNMARK and 0xffffffef',
    'CONNMARK   all  --  anywhere             anywhere             CONNMARK and 0xffffffef',
  ],
  [
    '-A LISTED -j MARK --set-xmark 0x4000/0x4000',
    '    0     0 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            MARK or 0x4000',
    'MARK       all  --  anywhere             anywhere             MARK or 0x4000',
  ],
  [
    '-A LISTED -j MARK --set-xmark 0x4000/0x0',
    '    0     0 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            MARK xor 0x4000',
    'MARK       all  --  anywhere             anywhere             MARK xor 0x4000',
  ],
  [
    '-A LISTED -j MARK --set-xmark 0x0/0x10000',
    '    0     0 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            MARK and 0xfffeffff',
    'MARK       all  --  anywhere             anywhere             MARK and 0xfffeffff',
  ],
  [
    '-A LISTED -j MARK --set-xmark 0x0/0xffffffff',
    '    0     0 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            MARK and 0x0',
    'MARK       all  --  anywhere             anywhere             MARK and 0x0',
  ],
  [
    '-A LISTED -j MARK --set-xmark 0x40/0x60',
    '    0     0 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            MARK xset 0x40/0x60',
    'MARK       all  --  anywhere             anywhere             MARK xset 0x40/0x60',
  ],
  [
    '-A LISTED -j MARK --set-xmark 0x5/0xffffffff',
    '    0     0 MARK       0    --  *      *       0.0.0.0/0            0.0.0.0/0            MARK set 0x5',
    'MARK       all  --  anywhere             anywhere             MARK set 0x5',
  ],
  [
    '-A LISTED -p tcp -j TPROXY --on-port 15001 --on-ip 0.0.0.0 --tproxy-mark 0x539/0xffffffff',
    '    0     0 TPROXY     6    --  *      *       0.0.0.0/0            0.0.0.0/0            TPROXY redirect 0.0.0.0:15001 mark 0x539/0xffffffff',
    'TPROXY     tcp  --  anywhere             anywhere             TPROXY redirect 0.0.0.0:15001 mark 0x539/0xffffffff',
  ],
  [
    '-A LISTED -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --set-mss 1360',
    '    0     0 TCPMSS     6    --  *      *       0.0.0.0/0            0.0.0.0/0            tcp flags:0x06/0x02 TCPMSS set 1360',
    'TCPMSS     tcp  --  anywhere             anywhere             tcp flags:SYN,RST/SYN TCPMSS set 1360',
  ],
  [
    '-A LISTED -j TOS --set-tos 0x10/0x3f',
    '    0     0 TOS        0    --  *      *       0.0.0.0/0            0.0.0.0/0            TOS set 0x10/0x3f',
    'TOS        all  --  anywhere             anywhere              TOS setMinimize-Delay',
  ],
  [
    '-A LISTED -j DSCP --set-dscp 0x10',
    '    0     0 DSCP       0    --  *      *       0.0.0.0/0            0.0.0.0/0            DSCP set 0x10',
    'DSCP       all  --  anywhere             anywhere             DSCP set 0x10',
  ],
  [
    '-A LISTED -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill',
    '    0     0 CHECKSUM   17   --  *      *       0.0.0.0/0            0.0.0.0/0            udp dpt:68 CHECKSUM fill',
    'CHECKSUM   udp  --  anywhere             anywhere             udp dpt:bootpc CHECKSUM fill',
  ],
  [
    '-A LISTED -j CLASSIFY --set-class 0001:0010',
    '    0     0 CLASSIFY   0    --  *      *       0.0.0.0/0            0.0.0.0/0            CLASSIFY set 1:10',
    'CLASSIFY   all  --  anywhere             anywhere             CLASSIFY set 1:10',
  ],
  [
    '-A LISTED -j TTL --ttl-set 64',
    '    0     0 TTL        0    --  *      *       0.0.0.0/0            0.0.0.0/0            TTL set to 64',
    'TTL        all  --  anywhere             anywhere             TTL set to 64',
  ],
  [
    '-A LISTED -j CT --notrack',
    '    0     0 CT         0    --  *      *       0.0.0.0/0            0.0.0.0/0            CT notrack',
    'CT         all  --  anywhere             anywhere             CT notrack',
  ],
  [
    '-A LISTED -j NOTRACK',
    '    0     0 CT         0    --  *      *       0.0.0.0/0            0.0.0.0/0            NOTRACK',
    'CT         all  --  anywhere             anywhere             NOTRACK',
  ],
  [
    '-A LISTED -p tcp -m tcp --dport 21 -j CT --helper ftp',
    '    0     0 CT         6    --  *      *       0.0.0.0/0            0.0.0.0/0            tcp dpt:21 CT helper ftp',
    'CT         tcp  --  anywhere             anywhere             tcp dpt:ftp CT helper ftp',
  ],
  [
    '-A LISTED -j CT --zone 5',
    '    0     0 CT         0    --  *      *       0.0.0.0/0            0.0.0.0/0            CT zone 5',
    'CT         all  --  anywhere             anywhere             CT zone 5',
  ],
  [
    '-A LISTED -j MASQUERADE',
    '    0     0 MASQUERADE  0    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'MASQUERADE  all  --  anywhere             anywhere            ',
  ],
  [
    '-A LISTED -j MASQUERADE --random-fully',
    '    0     0 MASQUERADE  0    --  *      *       0.0.0.0/0            0.0.0.0/0            random-fully',
    'MASQUERADE  all  --  anywhere             anywhere             random-fully',
  ],
  [
    '-A LISTED -p tcp -j MASQUERADE --to-ports 1024-65535',
    '    0     0 MASQUERADE  6    --  *      *       0.0.0.0/0            0.0.0.0/0            masq ports: 1024-65535',
    'MASQUERADE  tcp  --  anywhere             anywhere             masq ports: 1024-65535',
  ],
  [
    '-A LISTED -j SNAT --to-source 10.0.0.1 --random-fully',
    '    0     0 SNAT       0    --  *      *       0.0.0.0/0            0.0.0.0/0            to:10.0.0.1 random-fully',
    'SNAT       all  --  anywhere             anywhere             to:10.0.0.1 random-fully',
  ],
  [
    '-A LISTED -j SNAT --to-source 10.0.0.1 --random',
    '    0     0 SNAT       0    --  *      *       0.0.0.0/0            0.0.0.0/0            to:10.0.0.1 random',
    'SNAT       all  --  anywhere             anywhere             to:10.0.0.1 random',
  ],
  [
    '-A LISTED -p tcp -j DNAT --to-destination 10.0.0.1:80',
    '    0     0 DNAT       6    --  *      *       0.0.0.0/0            0.0.0.0/0            to:10.0.0.1:80',
    'DNAT       tcp  --  anywhere             anywhere             to:10.0.0.1:80',
  ],
  [
    '-A LISTED -p tcp -j DNAT --to-destination 10.0.0.1:80-90 --persistent',
    '    0     0 DNAT       6    --  *      *       0.0.0.0/0            0.0.0.0/0            to:10.0.0.1:80-90 persistent',
    'DNAT       tcp  --  anywhere             anywhere             to:10.0.0.1:80-90 persistent',
  ],
  [
    '-A LISTED -p tcp -j DNAT --to-destination :80 --random',
    '    0     0 DNAT       6    --  *      *       0.0.0.0/0            0.0.0.0/0            to::80 random',
    'DNAT       tcp  --  anywhere             anywhere             to::80 random',
  ],
  [
    '-A LISTED -p tcp -j REDIRECT --to-ports 15006',
    '    0     0 REDIRECT   6    --  *      *       0.0.0.0/0            0.0.0.0/0            redir ports 15006',
    'REDIRECT   tcp  --  anywhere             anywhere             redir ports 15006',
  ],
  [
    '-A LISTED -p tcp -j REDIRECT --to-ports 15006 --random',
    '    0     0 REDIRECT   6    --  *      *       0.0.0.0/0            0.0.0.0/0            redir ports 15006 random',
    'REDIRECT   tcp  --  anywhere             anywhere             redir ports 15006 random',
  ],
  [
    '-A LISTED -s 10.0.0.0/8 -j NETMAP --to 192.168.0.0/16',
    '    0     0 NETMAP     0    --  *      *       10.0.0.0/8           0.0.0.0/0            to:192.168.0.0/16',
    'NETMAP     all  --  10.0.0.0/8           anywhere             to:192.168.0.0/16',
  ],
  [
    '-A LISTED -m mark ! --mark 0x4000/0x4000 -j RETURN',
    '    0     0 RETURN     0    --  *      *       0.0.0.0/0            0.0.0.0/0            mark match ! 0x4000/0x4000',
    'RETURN     all  --  anywhere             anywhere             mark match ! 0x4000/0x4000',
  ],
  [
    '-A LISTED -j TRACE',
    '    0     0 TRACE      0    --  *      *       0.0.0.0/0            0.0.0.0/0           ',
    'TRACE      all  --  anywhere             anywhere            ',
  ],
]

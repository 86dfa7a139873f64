complete -c fence_kvmha -s n -l plug -d 'Name or UUID of the guest, or several with plug_separator between' -r
complete -c fence_kvmha -l nodename -d 'Name of the node to fence, used when no plug is given' -r
complete -c fence_kvmha -s U -l uri -d 'libvirt URIs of all hosts on which the guest could be, with commas or blanks between' -r
complete -c fence_kvmha -s a -l ip -d 'Addresses of all hosts on which the guest could be, instead of or beside uri; reached by ssh' -r
complete -c fence_kvmha -s u -l ipport -d 'TCP port at the hosts of ip, unless it is the usual one' -r
complete -c fence_kvmha -s l -l username -d 'User at the hosts of ip, and for libvirts that want a password' -r
complete -c fence_kvmha -s k -l identity-file -d 'Private key for ssh' -r
complete -c fence_kvmha -s p -l password -d 'Password for hosts whose libvirt wants one (SASL); not for ssh' -r
complete -c fence_kvmha -s S -l password-script -d 'Program that prints the password' -r
complete -c fence_kvmha -s x -l ssh -d 'Reach the hosts of ip by ssh; otherwise by libvirt\'s own TLS [default: 1]' -r
complete -c fence_kvmha -l ssh-path -d 'The ssh program' -r
complete -c fence_kvmha -l uuid-map -d 'UUIDs of guests: name:uuid pairs with semicolons, commas or blanks between; a guest of that name with another UUID is refused' -r
complete -c fence_kvmha -l use-uuid -d 'Take a plug only if it is a UUID [default: 0]' -r
complete -c fence_kvmha -l missing-as-off -d 'Take a guest for off if every host was reachable and none knows it; otherwise that is a failure [default: 0]' -r
complete -c fence_kvmha -l fenced-hosts -d 'Hosts that this cluster fences: host:node pairs with semicolons, commas or blanks between. Such a host may be out of reach if Pacemaker turned it off within fenced_within and it was not seen up since. Only for hosts whose devices cut the power: after fabric fencing the guests run on' -r
complete -c fence_kvmha -l fenced-within -d 'How long Pacemaker\'s record that a host of fenced_hosts was turned off counts [default: 600]' -r
complete -c fence_kvmha -l delay -d 'Wait X seconds before fencing is started [default: 0]' -r
complete -c fence_kvmha -l power-timeout -d 'Test X seconds for status change after ON/OFF; libvirt needs up to 15 to end a guest by force. Ignored under Pacemaker, see disable_timeout [default: 40]' -r
complete -c fence_kvmha -l power-wait -d 'Wait X seconds after issuing ON/OFF [default: 0]' -r
complete -c fence_kvmha -l shell-timeout -d 'Wait X seconds for the answer of a host. Ignored under Pacemaker, see disable_timeout [default: 5]' -r
complete -c fence_kvmha -l login-timeout -d 'Wait X seconds for the connection to a host. Ignored under Pacemaker, see disable_timeout [default: 5]' -r
complete -c fence_kvmha -l disable-timeout -d 'Ignore login_timeout, shell_timeout and power_timeout, and use 8, 7 and 38 seconds (default: true when run from Pacemaker)' -r
complete -c fence_kvmha -l retry-on -d 'Count of attempts to retry power on [default: 1]' -r
complete -c fence_kvmha -s C -l separator -d 'Separator for CSV created by operation list [default: ,]' -r
complete -c fence_kvmha -l plug-separator -d 'Separator between several plugs [default: ,]' -r
complete -c fence_kvmha -s v -l verbose -d 'Verbose mode [default: 0]' -r
complete -c fence_kvmha -l verbose-level -d 'Level of detail; any but 0 is verbose mode' -r
complete -c fence_kvmha -s D -l debug-file -d 'Write debug information to given file' -r
complete -c fence_kvmha -s q -l quiet -d 'Nothing on standard error; the reasons are in the system log [default: 0]' -r
complete -c fence_kvmha -s V -l version -d 'Display version information and exit [default: 0]' -r
complete -c fence_kvmha -s h -l help -d 'Display help and exit [default: 0]' -r
complete -c fence_kvmha -s c -l command-prompt -d 'Ignored: no shell is used on the hosts' -r
complete -c fence_kvmha -l ssh-options -d 'Ignored: use the ssh configuration of this node\'s root' -r
complete -c fence_kvmha -l use-sudo -d 'Ignored: the user needs libvirt\'s permission, not root\'s [default: 0]' -r
complete -c fence_kvmha -l sudo-path -d 'Ignored, as use_sudo' -r
complete -c fence_kvmha -l stonith-status-sleep -d 'Ignored: the hosts are asked at once and often' -r
complete -c fence_kvmha -s 4 -l inet4-only -d 'Ignored. To force IPv4 or IPv6, give addresses [default: 0]' -r
complete -c fence_kvmha -s 6 -l inet6-only -d 'Ignored. To force IPv4 or IPv6, give addresses [default: 0]' -r
complete -c fence_kvmha -l port-as-ip -d 'Refused: a guest is not its host [default: 0]' -r
complete -c fence_kvmha -s o -l action -d 'Fencing action [default: reboot] [possible values: on, off, reboot, status, list, list-status, monitor, metadata, manpage, validate-all, tell]' -r -f -a "on\t''
off\t''
reboot\t''
status\t''
list\t''
list-status\t''
monitor\t''
metadata\t''
manpage\t''
validate-all\t''
tell\t''"
complete -c fence_kvmha -s m -l method -d 'Method to fence; both end the guest, prove it off and start it again [default: onoff] [possible values: onoff, cycle]' -r -f -a "onoff\t''
cycle\t''"

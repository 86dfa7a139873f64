# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_kvmha_global_optspecs
    string join \n V/version h/help
end

function __fish_kvmha_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_kvmha_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_kvmha_using_subcommand
    set -l cmd (__fish_kvmha_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c kvmha -n "__fish_kvmha_needs_command" -s V -l version -d 'Print the version; --version also what it was built with, and the libvirt that is installed here'
complete -c kvmha -n "__fish_kvmha_needs_command" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "agent" -d 'Run an action of the resource agent ocf:kvmha:VirtualDomain (parameters come from the environment, OCF_RESKEY_*)'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "fence" -d 'Run the fence agent fence_kvmha, or print devices of other agents as devices of it (fence convert)'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "adopt" -d 'Change running resources from ocf:heartbeat:VirtualDomain to ocf:kvmha:VirtualDomain, or back, without stopping a guest'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "check" -d 'Say whether a guest can be moved to a node, and what would make the move fail: 0 it can, 1 it cannot'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "migrate" -d 'Have Pacemaker move a guest live, and show how far it is; Ctrl-C leaves the guest where it was'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "migrations" -d 'List the results of the moves from this node'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "status" -d 'Show every guest of the cluster: where it is, how it is and since when, its last move and its last failure'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "where" -d 'Ask every node where a guest is and what is left of it: 0 exactly one copy, 1 none, 2 several, or a node could not be asked'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "repair" -d 'Say what of a guest has to be cleaned up on this node, and do it with --yes; the last running copy is never touched'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "metrics" -d 'Print guests and moves for Prometheus, in the format of node exporter\'s textfile collector'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "doctor" -d 'Say whether this cluster is fit for guests, and what to do where it is not: 0 it is, 1 something was found'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "storage" -d 'Show what is under a guest, or all: its kind, what proves which thing it is, whether it answers, and whether another node has the same'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "generate" -d 'Write the metadata, manual pages and shell completions, as packages ship them'
complete -c kvmha -n "__fish_kvmha_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kvmha -n "__fish_kvmha_using_subcommand agent" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand fence; and not __fish_seen_subcommand_from convert" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand fence; and not __fish_seen_subcommand_from convert" -f -a "convert" -d 'Print the devices of fence_virsh, fence_xvm, fence_virt and external/libvirt as devices of fence_kvmha'
complete -c kvmha -n "__fish_kvmha_using_subcommand fence; and __fish_seen_subcommand_from convert" -l cib -d 'Read the configuration from this file (as cibadmin --query prints it) instead of from the cluster' -r -F
complete -c kvmha -n "__fish_kvmha_using_subcommand fence; and __fish_seen_subcommand_from convert" -l agent -d 'Agent of a device that is in no configuration: fence_virsh, fence_xvm, fence_virt or external/libvirt' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand fence; and __fish_seen_subcommand_from convert" -l parameters -d 'Its parameters' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand fence; and __fish_seen_subcommand_from convert" -l uri -d 'libvirt URIs of all hosts, with commas between, instead of what the device says' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand fence; and __fish_seen_subcommand_from convert" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand adopt" -l from-libvirt -d 'A guest that libvirt runs on this node outside the cluster: print the commands that put it under the cluster without stopping it' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand adopt" -l config -d 'Where the definition of that guest is to be, on storage that all nodes have' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand adopt" -l all -d 'All resources that have the other agent'
complete -c kvmha -n "__fish_kvmha_using_subcommand adopt" -l back -d 'Back to ocf:heartbeat:VirtualDomain'
complete -c kvmha -n "__fish_kvmha_using_subcommand adopt" -l dry-run -d 'Only say what would be done'
complete -c kvmha -n "__fish_kvmha_using_subcommand adopt" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand check" -l set -d 'A parameter of the agent, instead of the resource\'s own' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand check" -l to -d 'The node it is to be moved to' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand check" -l json -d 'Print JSON'
complete -c kvmha -n "__fish_kvmha_using_subcommand check" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand migrate" -l timeout -d 'Seconds after which it is taken back' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand migrate" -l plain -d 'Print lines instead of a bar, as is done without a terminal'
complete -c kvmha -n "__fish_kvmha_using_subcommand migrate" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand migrations" -l folder -d 'Where the records are' -r -F
complete -c kvmha -n "__fish_kvmha_using_subcommand migrations" -l json -d 'Print JSON'
complete -c kvmha -n "__fish_kvmha_using_subcommand migrations" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand status" -l watch -d 'Look again every so many seconds (every 2 if no number is given), until it is interrupted' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand status" -l json -d 'Print JSON; with --watch an object a line'
complete -c kvmha -n "__fish_kvmha_using_subcommand status" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand where" -l set -d 'A parameter of the agent, instead of the resource\'s own' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand where" -l node -d 'Ask this node too; without Pacemaker only those that are named are known' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand where" -l json -d 'Print JSON'
complete -c kvmha -n "__fish_kvmha_using_subcommand where" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand repair" -l set -d 'A parameter of the agent, instead of the resource\'s own' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand repair" -l yes -d 'Do it'
complete -c kvmha -n "__fish_kvmha_using_subcommand repair" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand metrics" -l output -d 'Write them to this file, whole or not at all, instead of to standard output' -r -F
complete -c kvmha -n "__fish_kvmha_using_subcommand metrics" -l folder -d 'Where the records of moves are' -r -F
complete -c kvmha -n "__fish_kvmha_using_subcommand metrics" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand doctor" -s q -l quiet -d 'Only what was found'
complete -c kvmha -n "__fish_kvmha_using_subcommand doctor" -l json -d 'Print JSON'
complete -c kvmha -n "__fish_kvmha_using_subcommand doctor" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand storage" -l set -d 'A parameter of the agent, instead of the resource\'s own' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand storage" -l to -d 'A node that is asked whether it has the same' -r
complete -c kvmha -n "__fish_kvmha_using_subcommand storage" -l json -d 'Print JSON'
complete -c kvmha -n "__fish_kvmha_using_subcommand storage" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand generate" -s h -l help -d 'Print help'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "agent" -d 'Run an action of the resource agent ocf:kvmha:VirtualDomain (parameters come from the environment, OCF_RESKEY_*)'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "fence" -d 'Run the fence agent fence_kvmha, or print devices of other agents as devices of it (fence convert)'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "adopt" -d 'Change running resources from ocf:heartbeat:VirtualDomain to ocf:kvmha:VirtualDomain, or back, without stopping a guest'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "check" -d 'Say whether a guest can be moved to a node, and what would make the move fail: 0 it can, 1 it cannot'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "migrate" -d 'Have Pacemaker move a guest live, and show how far it is; Ctrl-C leaves the guest where it was'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "migrations" -d 'List the results of the moves from this node'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "status" -d 'Show every guest of the cluster: where it is, how it is and since when, its last move and its last failure'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "where" -d 'Ask every node where a guest is and what is left of it: 0 exactly one copy, 1 none, 2 several, or a node could not be asked'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "repair" -d 'Say what of a guest has to be cleaned up on this node, and do it with --yes; the last running copy is never touched'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "metrics" -d 'Print guests and moves for Prometheus, in the format of node exporter\'s textfile collector'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "doctor" -d 'Say whether this cluster is fit for guests, and what to do where it is not: 0 it is, 1 something was found'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "storage" -d 'Show what is under a guest, or all: its kind, what proves which thing it is, whether it answers, and whether another node has the same'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "generate" -d 'Write the metadata, manual pages and shell completions, as packages ship them'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and not __fish_seen_subcommand_from agent fence adopt check migrate migrations status where repair metrics doctor storage generate help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c kvmha -n "__fish_kvmha_using_subcommand help; and __fish_seen_subcommand_from fence" -f -a "convert" -d 'Print the devices of fence_virsh, fence_xvm, fence_virt and external/libvirt as devices of fence_kvmha'

function __kvmha_resources
    timeout 2 crm_resource --list-raw 2>/dev/null
end

function __kvmha_nodes
    timeout 2 crm_node --list 2>/dev/null | string replace -rf '^\S+\s+(\S+).*' '$1'
end

# How many words stand before this one that are no options.
function __kvmha_words
    count (string match -v -- '-*' (commandline -opc))
end

complete -c kvmha -n "__fish_kvmha_using_subcommand adopt" -a "(__kvmha_resources)"
complete -c kvmha -n "__fish_kvmha_using_subcommand check" -l to -r -a "(__kvmha_nodes)"
complete -c kvmha -n "__fish_kvmha_using_subcommand check" -a "(__kvmha_resources)"
complete -c kvmha -n "__fish_kvmha_using_subcommand migrate; and test (__kvmha_words) -eq 2" -a "(__kvmha_resources)"
complete -c kvmha -n "__fish_kvmha_using_subcommand migrate; and test (__kvmha_words) -ge 3" -a "(__kvmha_nodes)"
complete -c kvmha -n "__fish_kvmha_using_subcommand where" -l node -r -a "(__kvmha_nodes)"
complete -c kvmha -n "__fish_kvmha_using_subcommand where" -a "(__kvmha_resources)"
complete -c kvmha -n "__fish_kvmha_using_subcommand repair" -a "(__kvmha_resources)"
complete -c kvmha -n "__fish_kvmha_using_subcommand storage" -l to -r -a "(__kvmha_nodes)"
complete -c kvmha -n "__fish_kvmha_using_subcommand storage" -a "(__kvmha_resources)"

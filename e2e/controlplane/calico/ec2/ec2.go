// Package ec2 stands in for AWS' client of EC2, whose 12 MB take longer to compile than the rest of Felix. Felix calls it
// for `awsSrcDstCheck` alone, which is not set here.
package ec2

import (
	"context"
	"errors"

	"github.com/aws/aws-sdk-go-v2/service/ec2/types"
)

var errLeftOut = errors.New("this Felix was built without EC2: e2e/controlplane/calico/ec2")

type Client struct{}

type Options struct{ Region string }

type DescribeInstancesInput struct{ InstanceIds []string }

type DescribeInstancesOutput struct{ Reservations []types.Reservation }

type ModifyNetworkInterfaceAttributeInput struct {
	NetworkInterfaceId *string
	SourceDestCheck    *types.AttributeBooleanValue
}

type ModifyNetworkInterfaceAttributeOutput struct{}

func NewFromConfig(any, ...func(*Options)) *Client { return &Client{} }

func (*Client) DescribeInstances(
	context.Context, *DescribeInstancesInput, ...func(*Options),
) (*DescribeInstancesOutput, error) {
	return nil, errLeftOut
}

func (*Client) ModifyNetworkInterfaceAttribute(
	context.Context, *ModifyNetworkInterfaceAttributeInput, ...func(*Options),
) (*ModifyNetworkInterfaceAttributeOutput, error) {
	return nil, errLeftOut
}
